"""The Indiana chest X-rays in both of their layouts, on folders made up here."""

import numpy as np
import pytest
from archives import build, loaded, write_picture, write_table

from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.sources.openi import OpenI, parse_xml
from medjax.errors import UserError

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
 <uId id="CXR{uid}"/>
 <MedlineCitation><Article><Abstract>
  <AbstractText Label="COMPARISON">None.</AbstractText>
  <AbstractText Label="FINDINGS">{findings}</AbstractText>
  <AbstractText Label="IMPRESSION">Heart &amp; lungs, report {uid}.</AbstractText>
 </Abstract></Article></MedlineCitation>
 <MeSH><major>{term}</major><automatic>lung</automatic></MeSH>
 <parentImage id="CXR{uid}_IM-0001-1001"><caption>PA</caption></parentImage>
 <parentImage id="CXR{uid}_IM-0001-2001"><caption>Lateral</caption></parentImage>
</eCitation>
"""


@pytest.fixture
def kaggle(tmp_path):
    """Thirty reports of two views; the lateral one stands first in the table."""
    reports, projections = [], []
    for uid in range(1, 31):
        problems = ("normal", "Cardiomegaly;Pleural Effusion", "")[uid % 3]
        texts = {"indication": "Cough", "findings": f"Findings {uid}.", "impression": "" if uid == 2 else "Impression."}
        reports.append({"uid": uid, "MeSH": problems, "Problems": problems, "image": "PA and lateral"} | texts)
        for gray, view in ((200, "Lateral"), (40, "Frontal")):
            name = f"{uid}_IM-0001-{gray}.dcm.png"
            projections.append({"uid": uid, "filename": name, "projection": view})
            write_picture(tmp_path / "images" / "images_normalized" / name, gray)
    write_table(tmp_path / "indiana_reports.csv", reports)
    write_table(tmp_path / "indiana_projections.csv", projections)
    return tmp_path


@pytest.fixture
def nlm(tmp_path):
    """Three reports, the first without findings."""
    (tmp_path / "ecgen-radiology").mkdir()
    for uid in (1, 2, 10):
        term = "normal" if uid == 1 else "Pleural Effusion/right/small"
        text = XML.format(uid=uid, term=term, findings="" if uid == 1 else "Blunted.")
        (tmp_path / "ecgen-radiology" / f"{uid}.xml").write_text(text)
        for view, gray in ((1001, 40), (2001, 200)):
            write_picture(tmp_path / "NLMCXR_png" / f"CXR{uid}_IM-0001-{view}.png", gray)
    return tmp_path


def read(folder) -> dict:
    return {s.name: s.read() for s in OpenI(folder).studies()}


def test_a_report_of_the_tables_has_its_views_frontal_first(kaggle):
    example = read(kaggle)["report 1"]
    assert [np.asarray(decode(loaded(x)))[0, 0] for x in example.items["image"]] == [40, 200]
    assert decode_text(example.items["text"][0]) == "Findings 1. Impression."
    assert decode_text(read(kaggle)["report 2"].items["text"][0]) == "Findings 2."


def test_terms_are_labels_and_reports_without_terms_have_none(kaggle):
    labels = [read(kaggle)[f"report {i}"].labels for i in (1, 2, 3)]
    assert {k for k, v in labels[0].items() if v == 1} == {"Cardiomegaly", "Pleural Effusion"}
    assert all(np.isnan(v) for v in labels[1].values())
    assert {k for k, v in labels[2].items() if v == 1} == {"normal"}


def test_a_data_set_is_built(kaggle, tmp_path):
    manifest = build(OpenI(kaggle), tmp_path / "data")
    assert sum(s.examples for s in manifest.splits.values()) == 30 and not manifest.patients_known


def test_a_report_of_the_xml_reads_the_same(nlm):
    examples = read(nlm)
    assert list(examples) == ["report 1", "report 2", "report 10"]
    assert decode_text(examples["report 10"].items["text"][0]) == "Blunted. Heart & lungs, report 10."
    assert [np.asarray(decode(loaded(x)))[0, 0] for x in examples["report 2"].items["image"]] == [40, 200]
    assert {k for k, v in examples["report 2"].labels.items() if v == 1} == {"Pleural Effusion"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_in_every_encoding(tmp_path, encoding):
    path = tmp_path / "1.xml"
    bomb = '<!ENTITY a "lol">' + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    head = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [{bomb}]>'
    path.write_bytes(f"{head}<eCitation>&j;</eCitation>".encode(encoding))
    with pytest.raises(UserError, match="declares entities"):
        parse_xml(path)


def test_an_entity_of_another_file_is_refused(tmp_path):
    path = tmp_path / "1.xml"
    path.write_text('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><eCitation>&a;</eCitation>')
    with pytest.raises(UserError, match="declares entities"):
        parse_xml(path)


@pytest.mark.parametrize("text", ["", "<a>", "<a></b>", "no xml", '<?xml version="1.0" encoding="none"?><a/>'])
def test_what_is_no_xml_is_named(tmp_path, text):
    path = tmp_path / "1.xml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"1\.xml is not XML"):
        parse_xml(path)


def test_mutated_xml_is_read_or_refused(nlm, rng):
    path = nlm / "ecgen-radiology" / "1.xml"
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for i in range(150):
        data = whole.copy()
        at = rng.integers(0, len(data), rng.integers(1, 8))
        data[at] = rng.integers(0, 256, len(at)) if i % 3 else rng.integers(97, 123, len(at))
        path.write_bytes(data[: rng.integers(1, len(data)) if i % 3 == 1 else None].tobytes())
        try:
            OpenI(nlm).studies()[0].read()
        except UserError:
            refused += 1
    assert 0 < refused < 150


def test_a_folder_of_neither_layout_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has neither indiana_reports\.csv nor ecgen-radiology"):
        OpenI(tmp_path).studies()
