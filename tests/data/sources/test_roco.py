"""ROCO's layout and ROCOv2's on folders made up here: captions, and a licence for each figure."""

import pytest
from archives import build, loaded, write_picture, write_table

from medjax.data.privacy import licence
from medjax.data.records import decode_text
from medjax.data.sources.roco import Roco
from medjax.errors import UserError

LICENCES = ("CC BY", "CC BY-NC-SA", "NO-CC CODE")


@pytest.fixture
def archive(tmp_path):
    """Six figures a split, two of each licence, two of each article."""
    for split, first in (("train", 10), ("validation", 20), ("test", 30)):
        folder = tmp_path / "data" / split / "radiology"
        names = [f"ROCO_{first + i:05d}" for i in range(6)]
        for i, name in enumerate(names):
            write_picture(folder / "images" / f"{name}.jpg", 10 * i)
        (folder / "captions.txt").write_text("".join(f"{n}\t Axial CT, figure {n}, of a chest.\n" for n in names))
        table = [
            {"ROCO_ID": n, "PMC_ID": f"PMC{first + i // 2}_x-{i}.jpg", "CC": LICENCES[i % 3]}
            for i, n in enumerate(names)
        ]
        write_table(folder / ("cc_tp_test.csv" if split == "test" else "licences.txt"), table)
    return tmp_path


def test_a_figure_has_its_caption_split_and_article(archive):
    found = {s.name: s for s in Roco(archive).studies()}
    assert len(found) == 18 and found["ROCO_00021"].split == "validation" and found["ROCO_00031"].split == "test"
    example = found["ROCO_00011"].read()
    assert decode_text(example.items["text"][0]) == "Axial CT, figure ROCO_00011, of a chest."
    assert example.group_id == "PMC10" and example.patient_id == "ROCO_00011"
    assert loaded(example.items["image"][0]).size > 100


def test_figures_are_chosen_by_their_licence(archive):
    source = Roco(archive, ("CC BY",))
    assert [s.name for s in source.studies()][:2] == ["ROCO_00010", "ROCO_00013"]
    assert not licence.of(source.schema).restricted
    mixed = licence.of(Roco(archive, ("CC BY", "CC BY-NC-SA")).schema)
    assert mixed.non_commercial and mixed.share_alike and mixed.known


def test_all_figures_together_have_unknown_terms(archive):
    assert licence.of(Roco(archive).schema).restricted


def test_a_data_set_is_built_and_an_absent_figure_is_rejected(archive, tmp_path):
    (archive / "data" / "train" / "radiology" / "images" / "ROCO_00010.jpg").unlink()
    manifest = build(Roco(archive), tmp_path / "out", max_rejected_fraction=0.1)
    assert {k: s.examples for k, s in manifest.splits.items()} == {"train": 5, "validation": 6, "test": 6}


def test_without_a_table_of_licences_none_can_be_chosen(archive):
    (archive / "data" / "train" / "radiology" / "licences.txt").unlink()
    with pytest.raises(UserError, match="no table of licences to choose by"):
        Roco(archive, ("CC BY",)).studies()


@pytest.mark.parametrize(
    ("line", "reason"), [("ROCO_1 no tab", "line 1 is not a name, a tab"), ("../../x\tcaption", "no name inside")]
)
def test_captions_of_another_form_are_refused(archive, line, reason):
    (archive / "data" / "train" / "radiology" / "captions.txt").write_text(line)
    with pytest.raises(UserError, match=reason):
        Roco(archive).studies()


def test_the_second_version(tmp_path):
    for split in ("train", "valid", "test"):
        name = f"ROCOv2_2023_{split}_000001"
        write_picture(tmp_path / split / f"{name}.jpg", 9)
        write_table(tmp_path / f"{split}_captions.csv", [{"ID": name, "Caption": "An, quoted, caption."}])
    names = [f"ROCOv2_2023_{split}_000001" for split in ("train", "valid", "test")]
    write_table(
        tmp_path / "license_information.csv",
        [{"ID": n, "Attribution": f"x et al., PMC{i}", "License": "CC BY"} for i, n in enumerate(names)],
    )
    source = Roco(tmp_path, ("CC BY",))
    studies = source.studies()
    assert [(s.name, s.split) for s in studies] == list(zip(names, ("train", "validation", "test"), strict=True))
    assert studies[2].read().group_id == "PMC2" and source.schema.name == "rocov2"
