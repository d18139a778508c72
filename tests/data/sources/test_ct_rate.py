"""CT-RATE's layout on a folder made up here: reconstructions, splits, labels and volumes in Hounsfield units."""

import numpy as np
import pytest
from archives import loaded, write_table

from medjax.data.records import decode_text
from medjax.data.sources.ct_rate import CtRate
from medjax.errors import UserError

nibabel = pytest.importorskip("nibabel")
TRAIN = ("train_1_a_1", "train_1_a_2", "train_1_b_1", "train_2_a_1")
VALID = ("valid_1_a_1",)


@pytest.fixture
def archive(tmp_path):
    """Two patients, one with two scans, one scan with two reconstructions; a valid patient of the same number."""
    root = tmp_path / "dataset"
    reports, labels = {"train": TRAIN, "validation": VALID}, {"train": TRAIN, "valid": VALID}
    for name, volumes in reports.items():
        rows = [
            {
                "VolumeName": f"{v}.nii.gz",
                "ClinicalInformation_EN": "Cough",
                "Technique_EN": "CT",
                "Findings_EN": f"Findings of scan {v[:-2]}.",
                "Impressions_EN": "Not given." if v == "train_2_a_1" else "Emphysema.",
            }
            for v in volumes
        ]
        write_table(root / "radiology_text_reports" / f"{name}_reports.csv", rows)
    for name, volumes in labels.items():
        rows = [{"VolumeName": f"{v}.nii.gz", "Emphysema": 1, "Lung nodule": int(v.endswith("1"))} for v in volumes]
        write_table(root / "multi_abnormality_labels" / f"{name}_predicted_labels.csv", rows)
    for i, volume in enumerate((*TRAIN, *VALID)):
        split, patient, scan, _ = volume.split("_")
        folder = root / f"{split}_fixed" / f"{split}_{patient}" / f"{split}_{patient}_{scan}"
        folder.mkdir(parents=True, exist_ok=True)
        voxels = np.full((4, 5, 6), -1000 + 10 * i, np.int16)
        image = nibabel.Nifti1Image(voxels, np.diag((0.75, 0.75, 1.5, 1)))
        image.header.set_xyzt_units("mm")
        nibabel.save(image, folder / f"{volume}.nii.gz")
    return tmp_path


def studies(source) -> dict:
    return {s.name.removesuffix(".nii.gz"): s for s in source.studies()}


def test_reconstructions_of_a_scan_are_one_group_and_one_patient(archive):
    examples = {name: s.read() for name, s in studies(CtRate(archive)).items()}
    assert {name: x.group_id for name, x in examples.items()} == {name: name[:-2] for name in (*TRAIN, *VALID)}
    assert examples["train_1_a_1"].patient_id == examples["train_1_b_1"].patient_id == "train_1"
    assert examples["valid_1_a_1"].patient_id == "valid_1"  # another patient of the same number


def test_reconstructions_may_be_items_of_one_example(archive):
    found = studies(CtRate(archive, reconstructions="items"))
    assert list(found) == ["train_1_a", "train_1_b", "train_2_a", "valid_1_a"]
    volumes = [loaded(x) for x in found["train_1_a"].read().items["volume"]]
    assert [int(v.values[0, 0, 0]) for v in volumes] == [-1000, -990]


def test_volumes_are_in_hounsfield_units_and_millimetres(archive):
    volume = loaded(studies(CtRate(archive))["train_1_b_1"].read().items["volume"][0])
    assert volume.unit == "HU" and volume.values.shape == (6, 5, 4) and volume.spacing == (1.5, 0.75, 0.75)
    assert (volume.values == -980).all()


def test_reports_are_findings_and_impression_where_they_are_given(archive):
    texts = {k: decode_text(s.read().items["text"][0]) for k, s in studies(CtRate(archive)).items()}
    assert texts["train_1_a_1"] == texts["train_1_a_2"] == "Findings of scan train_1_a. Emphysema."
    assert texts["train_2_a_1"] == "Findings of scan train_2_a."


def test_labels_are_the_columns_of_the_table(archive):
    source = CtRate(archive)
    assert source.schema.labels == ("Emphysema", "Lung nodule")
    assert studies(source)["train_1_a_2"].read().labels == {"Emphysema": 1.0, "Lung nodule": 0.0}


def test_the_official_validation_split_is_the_test_split(archive):
    splits = {name: s.split for name, s in studies(CtRate(archive)).items()}
    assert splits.pop("valid_1_a_1") == "test"
    assert len({splits[name] for name in TRAIN[:3]}) == 1 and set(splits.values()) <= {"train", "validation"}


def test_volumes_that_show_no_chest_are_left_out(archive):
    (archive / "dataset" / "metadata").mkdir()
    (archive / "dataset" / "metadata" / "no_chest_train.txt").write_text("train_1_a_2.nii.gz\ntrain_1_b_1\n")
    assert list(studies(CtRate(archive))) == ["train_1_a_1", "train_2_a_1", "valid_1_a_1"]


@pytest.mark.parametrize(
    "name", ["../../x_1_a_1.nii.gz", "valid_1_a_1.nii.gz", "train_1_a_1.nii", "train_\u0661_a_1.nii.gz"]
)
def test_a_volume_of_another_name_is_refused(archive, name):
    rows = [{"VolumeName": name, "Findings_EN": "x", "Impressions_EN": "y"}]
    write_table(archive / "dataset" / "radiology_text_reports" / "train_reports.csv", rows)
    with pytest.raises(UserError, match=r"expected such as train_1_a_1\.nii\.gz"):
        CtRate(archive).studies()
