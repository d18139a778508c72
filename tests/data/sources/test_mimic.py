"""MIMIC's layout on folders made up here: views, labels, reports, and the joins with ECGs and lab tests."""

import numpy as np
import pytest
from archives import build, loaded, write_picture, write_table
from tiny_source import write_wfdb

from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.sources.chexpert_labels import LABELS
from medjax.data.sources.lab_events import SYMILE_LABS
from medjax.data.sources.mimic import Mimic
from medjax.errors import UserError

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  Cough of Mr. ___

 COMPARISON:  None.

 FINDINGS:

 The lungs are
 clear, study {study}.

 IMPRESSION:

 No acute process.
"""
# Of three subjects, one a split: study, subject, date, time, views. The admission of each is on 2180-01-01 at noon.
STUDIES = [
    ("50000001", "10000001", "21800102", "115959.5", ("LATERAL", "AP")),  # a second less than 24 hours after it
    ("50000002", "10000001", "21800102", "120001", ("PA",)),
    ("50000003", "10000001", "21800104", "110000", ("AP",)),
    ("50000004", "11000002", "21800104", "93000", ("AP",)),  # time without its leading zero
    ("50000005", "12000003", "21800103", "000000.0", ("PA",)),
    ("50000006", "12000003", "21800401", "120000", ("LATERAL",)),
]
SPLITS = {"10000001": "train", "11000002": "validate", "12000003": "test"}
ECGS = [
    ("40000001", "10000001", "2179-12-31 11:59:00"),  # more than 24 hours before
    ("40000002", "10000001", "2180-01-02 11:00:00"),
    ("40000003", "10000001", "2180-01-01 13:00:00"),
    ("40000004", "11000002", "2180-01-01 12:00:00"),
    ("40000005", "12000003", "2180-01-01 12:00:00"),
    ("40000006", "12000003", "2180-03-20 12:00:00"),
    ("40000007", "19000009", "2180-01-01 12:00:00"),  # no radiograph
]
LABS = [
    ("10000001", "50912", "2180-01-01 18:00:00", "1.5"),
    ("10000001", "50912", "2180-01-01 06:00:00", "1.1"),  # earlier, and counts
    ("10000001", "50912", "2179-12-30 06:00:00", "9.9"),  # before the window
    ("10000001", "51221", "2180-01-01 06:00:00", ""),  # a comment, no number
    ("10000001", "99999", "2180-01-01 06:00:00", "7"),  # none of the fifty
    ("11000002", "51221", "2180-01-02 12:00:00", "40"),  # at the end of the window
    ("12000003", "51221", "2180-01-01 12:00:00", "41"),
    ("12000003", "51221", "2180-01-01 12:00:00", "42"),  # of the same time, later in the table
]


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory,
):
    """The folders as PhysioNet gives them, under a common one."""
    root = tmp_path_factory.mktemp("physionet.org") / "files"
    write_radiographs(root / "mimic-cxr-jpg" / "2.1.0")
    for study, subject, *_ in STUDIES[:5]:
        path = root / f"mimic-cxr/2.1.0/files/p{subject[:2]}/p{subject}/s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(REPORT.format(study=study))
    write_ecgs(root / "mimic-iv-ecg" / "1.0")
    hosp = root / "mimiciv" / "3.1" / "hosp"
    admitted = [{"subject_id": s, "hadm_id": f"2{s[:2]}", "admittime": "2180-01-01 12:00:00"} for s in SPLITS]
    write_table(
        hosp / "admissions.csv.gz", [*admitted, admitted[0] | {"hadm_id": "299", "admittime": "2185-01-01 00:00:00"}]
    )
    names = ("subject_id", "itemid", "charttime", "valuenum")
    write_table(hosp / "labevents.csv.gz", [dict(zip(names, row, strict=True)) | {"value": "___"} for row in LABS])
    return root


def write_radiographs(folder):
    metadata, splits = [], []
    for study, subject, date, time, views in STUDIES:
        for i, view in enumerate(views):
            dicom = f"{study}-{i}"
            about = {"ViewPosition": view, "StudyDate": date, "StudyTime": time}
            metadata.append({"dicom_id": dicom, "subject_id": subject, "study_id": study} | about)
            splits.append({"dicom_id": dicom, "study_id": study, "subject_id": subject, "split": SPLITS[subject]})
            gray = 30 if view == "LATERAL" else 150
            write_picture(folder / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg", gray)
    labels = [
        {"subject_id": subject, "study_id": study} | dict.fromkeys(LABELS, "") | {"Edema": "-1.0", "Fracture": "1.0"}
        for study, subject, *_ in STUDIES
    ]
    write_table(folder / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)
    write_table(folder / "mimic-cxr-2.0.0-split.csv.gz", splits)
    write_table(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", labels)
    write_table(folder / "mimic-cxr-2.0.0-negbio.csv.gz", [row | {"Fracture": "0.0"} for row in labels])


def write_ecgs(folder):
    leads = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")  # the archive's order
    records, measured = [], []
    for study, subject, time in ECGS:
        path = f"files/p{subject[:4]}/p{subject}/s{study}/{study}"
        signal = np.tile(np.arange(1.0, 13)[:, None] * int(study[-1]) / 40, (1, 1000))
        write_wfdb(folder / path.rsplit("/", 1)[0], study, signal, leads, rate=100)
        about = {"subject_id": subject, "study_id": study}
        records.append(about | {"file_name": study, "ecg_time": time, "path": path})
        said = {f"report_{i}": "" for i in range(18)} | {"report_0": "Sinus rhythm", "report_1": f"ECG {study}"}
        measured.append(about | {"cart_id": "1", "ecg_time": time} | said)
    write_table(folder / "record_list.csv", records)
    write_table(folder / "machine_measurements.csv", measured)


def studies(source) -> dict:
    return {study.name: study for study in source.studies()}


def text_of(example) -> str:
    return decode_text(example.items["text"][0])


def test_a_study_has_its_views_labels_report_and_official_split(archive):
    found = studies(Mimic(archive))
    assert [s.split for s in found.values()] == ["train"] * 3 + ["validation", "test"]  # one has no frontal view
    example = found["study 50000001"].read()
    assert len(example.items["image"]) == 1 and decode(loaded(example.items["image"][0])).getpixel((0, 0)) == 150
    assert text_of(example) == "The lungs are clear, study 50000001. No acute process."
    assert example.labels["Edema"] == 1 and example.labels["Fracture"] == 1 and example.labels["Pneumonia"] == 0


def test_lateral_views_come_last_where_they_are_asked_for(archive):
    found = studies(Mimic(archive, frontal=False))
    grays = [decode(loaded(x)).getpixel((0, 0)) for x in found["study 50000001"].read().items["image"]]
    assert grays == [150, 30] and "study 50000006" in found


def test_labels_of_the_other_labeller(archive):
    assert studies(Mimic(archive, labeller="negbio"))["study 50000001"].read().labels["Fracture"] == 0


def test_times_are_days_since_the_subjects_first_event(archive):
    found = studies(Mimic(archive))
    assert found["study 50000001"].read().time == 0
    assert found["study 50000003"].read().time == pytest.approx(2 - 1 / 24, abs=1e-4)


def test_a_window_joins_every_pair_that_is_close_enough(archive):
    source = Mimic(archive, rule="window", days=60)
    pairs = {tuple(name.split()[1::3]) for name in studies(source)}
    first = {(f"5000000{i}", f"4000000{j}") for i in (1, 2, 3) for j in (1, 2, 3)}
    assert pairs == first | {("50000004", "40000004"), ("50000005", "40000005")}  # 77 days are too many
    assert len(studies(Mimic(archive, rule="window", days=80))) == len(pairs) + 1


def test_pairs_share_the_group_of_their_radiograph(archive):
    found = studies(Mimic(archive, rule="window"))
    groups = {found[f"study 50000001 with ECG 4000000{j}"].read().group_id for j in (1, 2, 3)}
    assert groups == {"50000001"}
    example = found["study 50000001 with ECG 40000002"].read()
    assert text_of(example).endswith("No acute process. ECG: Sinus rhythm ECG 40000002")
    signal = loaded(example.items["ecg"][0])
    np.testing.assert_allclose(signal[:6, 0], np.array([1, 2, 3, 4, 6, 5]) * 2 / 40, atol=1e-3)  # leads put in order


def test_the_nearest_ecg_alone(archive):
    names = list(studies(Mimic(archive, rule="window", nearest=True)))
    assert names[:2] == ["study 50000001 with ECG 40000002", "study 50000002 with ECG 40000002"]
    assert len(names) == 5


def test_an_admission_has_the_first_of_each_in_its_window(archive):
    found = studies(Mimic(archive, rule="admission"))
    assert list(found) == ["admission 210", "admission 211", "admission 212"]  # 299 has nothing within its windows
    example = found["admission 210"].read()
    # A radiograph a second before 24 hours have passed does not count; the first ECG within 24 hours does.
    assert [x.path.name for x in example.items["image"]] == ["50000002-0.jpg"]
    assert example.items["ecg"][0].path.name == "40000003"
    assert example.patient_id == "10000001" and example.time == 0


def test_lab_values_are_the_first_of_each_test(archive):
    found = studies(Mimic(archive, rule="admission"))
    creatinine, hematocrit = (list(SYMILE_LABS).index(k) for k in ("50912", "51221"))
    labs = [found[f"admission {k}"].read().items["labs"][0] for k in ("210", "211", "212")]
    np.testing.assert_array_equal([x[hematocrit] for x in labs], np.array([np.nan, 40, 41], np.float32))
    np.testing.assert_array_equal(labs[0][creatinine], np.float32(1.1))
    assert np.isfinite(labs[0]).sum() == 1


def test_a_data_set_of_admissions_is_built_without_subjects_or_dates(archive, tmp_path):
    manifest = build(Mimic(archive, rule="admission"), tmp_path)
    assert {k: s.present for k, s in manifest.splits.items()} == {
        k: dict.fromkeys(("image", "ecg", "labs", "text"), 1) for k in ("train", "validation", "test")
    }
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for secret in (b"10000001", b"50000002", b"40000003", b"2180"):
        assert secret not in stored


def test_without_the_reports_the_fix_is_named(archive, tmp_path):
    alone = tmp_path / "cxr"
    write_radiographs(alone)
    with pytest.raises(UserError, match="there are no reports"):
        Mimic(alone).studies()
    assert "text" not in Mimic(alone, reports=False).schema.modalities
    assert len(Mimic(alone, reports=False).studies()) == 5


def test_an_archive_that_is_not_there_is_named(archive, tmp_path):
    write_radiographs(tmp_path)
    with pytest.raises(UserError, match=r"record_list\.csv or record_list\.csv\.gz is nowhere under"):
        Mimic(tmp_path, rule="window", reports=False).studies()


def test_a_rule_of_another_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match="unknown MIMIC rule 'windows'; did you mean 'window'"):
        Mimic(tmp_path, rule="windows")
