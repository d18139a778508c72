"""CheXpert's layout on a folder made up here: views, splits, uncertain labels, and the reports of CheXpert Plus."""

import numpy as np
import pytest
from archives import build, loaded, write_picture, write_table

from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.sources.chexpert import CheXpert
from medjax.data.sources.chexpert_labels import LABELS, LabelPolicy
from medjax.errors import UserError


def row(path: str, **labels: str) -> dict[str, str]:
    side = "Frontal" if "frontal" in path else "Lateral"
    about = {
        "Path": f"CheXpert-v1.0-small/{path}",
        "Sex": "Female",
        "Age": "60",
        "Frontal/Lateral": side,
        "AP/PA": "AP",
    }
    return about | dict.fromkeys(LABELS, "") | {k.replace("_", " "): v for k, v in labels.items()}


def train_rows(patients: int = 200) -> list[dict[str, str]]:
    """A study with two views of each patient, the lateral one first in the table."""
    labels = [dict(No_Finding="1.0"), dict(Edema="-1.0", Consolidation="-1.0"), dict(Pneumothorax="0.0", Edema="1.0")]
    return [
        row(f"train/patient{i:05d}/study1/{view}.jpg", **labels[i % 3])
        for i in range(1, patients + 1)
        for view in ("view2_lateral", "view1_frontal")
    ]


@pytest.fixture
def archive(tmp_path):
    """Writes the tables; pictures of the first patients, and of all in valid.csv."""
    folder = tmp_path / "CheXpert-v1.0-small"
    valid = [row(f"valid/patient{64540 + i}/study1/view1_frontal.jpg", Edema="1.0") for i in range(3)]
    write_table(folder / "train.csv", train_rows())
    write_table(folder / "valid.csv", valid)
    for i in range(1, 4):
        for gray, view in ((40, "view1_frontal"), (200, "view2_lateral")):
            write_picture(folder / f"train/patient{i:05d}/study1/{view}.jpg", gray)
    return folder


def studies(source) -> dict[str, object]:
    return {study.name: study for study in source.studies()}


def test_views_are_items_of_a_study_frontal_first(archive):
    example = studies(CheXpert(archive))["train/patient00001/study1"].read()
    pictures = [np.asarray(decode(loaded(x))) for x in example.items["image"]]
    assert [int(p.mean()) for p in pictures] == [40, 200]
    assert example.group_id == "train/patient00001/study1" and example.patient_id == "patient00001"


def test_sex_age_and_view_are_attributes_by_the_numbers_of_their_names(archive):
    rows = train_rows(3)
    rows[0] |= {"Sex": "Male", "Age": "", "AP/PA": ""}  # the lateral view of patient 1
    rows[1] |= {"Sex": "Male", "Age": "", "AP/PA": "PA"}
    rows[2:4] = [r | {"Sex": "Unknown"} for r in rows[2:4]]
    rows[5]["AP/PA"] = "LL"
    rows += [row("train/patient00004/study1/view1_lateral.jpg")]
    write_table(archive / "train.csv", rows)
    write_picture(archive / "train/patient00004/study1/view1_lateral.jpg", 1)
    source = CheXpert(archive)
    names = source.schema.attributes
    found = {}
    for k in range(1, 5):
        factors = studies(source)[f"train/patient0000{k}/study1"].read().factors
        assert set(factors) == set(names)
        found[k] = tuple(None if np.isnan(v) else names[a][int(v)] if names[a] else v for a, v in factors.items())
    order = list(studies(source)["train/patient00001/study1"].read().factors)
    assert order == ["sex", "view", "age"]
    assert found == {
        1: ("male", "frontal PA", None),
        2: (None, "frontal AP", 60.0),
        3: ("female", None, 60.0),
        4: ("female", "lateral", 60.0),
    }


def test_without_a_test_table_valid_is_the_test_split_and_validation_is_cut_by_patient(archive):
    found = studies(CheXpert(archive)).values()
    assert {s.split for s in found if s.name.startswith("valid/")} == {"test"}
    train = [s.split for s in found if s.name.startswith("train/")]
    assert set(train) == {"train", "validation"} and 0 < train.count("validation") < 0.1 * len(train)


def test_with_a_test_table_the_official_splits_stay(archive):
    write_table(archive / "test.csv", [row("test/patient64741/study1/view1_frontal.jpg")])
    found = studies(CheXpert(archive))
    assert {name.split("/")[0]: study.split for name, study in found.items()} == {
        "train": "train",
        "valid": "validation",
        "test": "test",
    }


@pytest.mark.parametrize(
    ("policy", "edema", "consolidation"),
    [("ignore", np.nan, np.nan), ("zeros", 0, 0), ("ones", 1, 1), ("mixed", 1, 0)],
)
def test_uncertain_labels_follow_the_policy(archive, policy, edema, consolidation):
    labels = studies(CheXpert(archive, LabelPolicy(policy)))["train/patient00001/study1"].read().labels
    np.testing.assert_equal([labels["Edema"], labels["Consolidation"]], [edema, consolidation])


def test_blank_labels_are_negative_or_unknown(archive):
    name = "train/patient00003/study1"
    assert studies(CheXpert(archive))[name].read().labels["Fracture"] == 0
    unknown = studies(CheXpert(archive, LabelPolicy(blank="ignore")))[name].read().labels
    assert np.isnan(unknown["Fracture"]) and unknown["No Finding"] == 1


def test_labels_that_the_table_does_not_have_are_unknown(archive):
    write_table(archive / "test.csv", [{"Path": "test/patient64741/study1/view1_frontal.jpg", "Edema": "1"}])
    write_picture(archive / "test/patient64741/study1/view1_frontal.jpg", 9)
    assert studies(CheXpert(archive))["test/patient64741/study1"].read().labels == {"Edema": 1.0}


def test_reports_of_chexpert_plus_are_joined_by_study(archive):
    plus = [
        {
            "path_to_image": "train/patient00002/study1/view1_frontal.jpg",
            "section_findings": "the heart is large\n",
            "section_impression": "1. cardiomegaly",
            "split": "train",
        }
    ]
    write_table(archive / "df_chexpert_plus_240401.csv", plus)
    source = CheXpert(archive)
    assert "text" in source.schema.modalities
    found = studies(source)
    (text,) = found["train/patient00002/study1"].read().items["text"]
    assert decode_text(text) == "the heart is large 1. cardiomegaly"
    assert "text" not in found["train/patient00001/study1"].read().items


def test_a_data_set_is_built_and_a_missing_picture_is_rejected(archive, tmp_path):
    write_table(archive / "train.csv", train_rows(3) + train_rows(4)[-1:])
    write_table(archive / "test.csv", [row("test/patient9/study1/view1_frontal.jpg", Edema="0")])
    for i in range(3):
        write_picture(archive / f"valid/patient{64540 + i}/study1/view1_frontal.jpg", i)
    write_picture(archive / "test/patient9/study1/view1_frontal.jpg", 1)
    manifest = build(CheXpert(archive), tmp_path / "data", max_rejected_fraction=0.5)
    assert {k: s.examples for k, s in manifest.splits.items()} == {"train": 3, "validation": 3, "test": 1}
    assert manifest.rejected == 1 and manifest.sensitive
    assert manifest.splits["train"].positive["Edema"] == 2  # one of them uncertain
    stored = b"".join(p.read_bytes() for p in (tmp_path / "data").glob("*.array_record"))
    assert b"patient0" not in stored


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("train/../../secret.jpg", "no name inside the archive's folder"),
        ("view1_frontal.jpg", "expected train/patient00001/study1"),
    ],
)
def test_paths_of_another_form_are_refused(archive, path, reason):
    write_table(archive / "train.csv", [row(path)])
    with pytest.raises(UserError, match=reason):
        for study in CheXpert(archive).studies():
            study.read()


def test_a_label_of_another_value_is_named(archive):
    write_table(archive / "train.csv", [row("train/patient00001/study1/view1_frontal.jpg", Edema="2")])
    with pytest.raises(UserError, match="label 'Edema' holds '2'"):
        CheXpert(archive).studies()[0].read()


def test_a_policy_of_another_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="unknown policy for uncertain labels 'one'; did you mean 'ones'"):
        LabelPolicy("one")
