"""Folders of classes become pictures with captions of their class; splits and patients come from the names."""

import json

import numpy as np
import pytest
from PIL import Image

from medjax.data.building.build import Options, build_dataset
from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.sources import Folders
from medjax.errors import UserError


def fill_folders(folder, *classes, splits=("",), n=4):
    """Pictures whose value tells their class."""
    for split in splits:
        for value, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                Image.new("L", (6, 5), 10 * value + i).save(folder / split / name / f"{split}p{i // 2}_{i}.png")
    return folder


def test_pictures_labels_and_captions_are_those_of_the_folder(tmp_path):
    source = Folders(fill_folders(tmp_path, "glioma", "left_kidney", "normal"))
    schema = source.schema
    assert schema.labels == ("glioma", "left_kidney", "normal") and not schema.patients_known
    examples = [study.read() for study in source.studies()]
    assert len(examples) == 12
    for k, example in enumerate(examples):
        label = schema.labels[k // 4]
        assert np.asarray(decode(example.items["image"][0].load())).max() == 10 * (k // 4) + k % 4
        assert example.labels == {name: float(name == label) for name in schema.labels}
        text = decode_text(example.items["text"][0])
        assert label.replace("_", " ") in text and text in schema.findings[label].positive
    assert len({decode_text(e.items["text"][0]) for e in examples[:4]}) > 1


def test_folders_above_the_classes_are_splits_and_a_pattern_finds_patients(tmp_path):
    folder = fill_folders(tmp_path / "in", "no", "yes", splits=("train", "Val", "TEST"))
    source = Folders(folder, patient=r"^(.*p\d+)_", sensitive=False)
    manifest = build_dataset(source, tmp_path / "data", Options(), lambda done, total: None)
    assert {k: (s.examples, s.patients) for k, s in manifest.splits.items()} == {
        "train": (8, 2),
        "validation": (8, 2),
        "test": (8, 2),
    }
    assert manifest.labels == ("yes",) and manifest.splits["train"].positive == {"yes": 4}
    assert manifest.patients_known and manifest.texts_from_labels
    assert set(manifest.findings["yes"].negative).isdisjoint(manifest.findings["yes"].positive)


def test_one_patient_may_have_pictures_of_several_classes(tmp_path):
    studies = Folders(fill_folders(tmp_path, "a", "b"), patient=r"p\d+").studies()
    assert [s.patient for s in studies] == ["p0", "p0", "p1", "p1"] * 2


def test_captions_of_a_file_are_taken_and_templates_fill_the_rest(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"a": ["alpha"], "*": ["scan of {}", "{}"]}))
    source = Folders(fill_folders(tmp_path / "in", "a", "b_c", "d"), captions=str(path))
    assert source.schema.findings["a"].positive == ("alpha",)
    assert source.schema.findings["b_c"].positive == ("scan of b c", "b c")
    assert source.schema.findings["a"].negative == ("scan of b c", "scan of d")


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold"),
        ('{"a": []}', "no list empty"),
        ('{"a": ["x"], "bb": ["y"]}', "captions for 'bb', which is no class; did you mean 'b'|valid: a, b"),
        ('{"a": ["x"]}', "lacks captions for 'b'"),
        ('{"*": ["x"]}', "has no {} for the class"),
    ],
)
def test_captions_that_do_not_fit_are_refused(tmp_path, captions, message):
    (tmp_path / "c.json").write_text(captions)
    with pytest.raises(UserError, match=message):
        _ = Folders(fill_folders(tmp_path / "in", "a", "b"), captions=str(tmp_path / "c.json")).schema


def test_layouts_that_are_no_folders_of_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="none does not exist"):
        Folders(tmp_path / "none").studies()
    with pytest.raises(UserError, match="two classes or more, it has 0"):
        Folders(tmp_path).studies()
    fill_folders(tmp_path, "a", "b", n=0)
    with pytest.raises(UserError, match="holds no picture"):
        Folders(tmp_path).studies()
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"holds splits \(train\) and something else \(a\)"):
        Folders(tmp_path).studies()
    with pytest.raises(UserError, match="regular expression"):
        Folders(fill_folders(tmp_path / "x", "a", "b"), patient="(").studies()


def test_a_picture_without_a_patient_or_outside_the_folder_is_refused(tmp_path):
    folder = fill_folders(tmp_path / "in", "a", "b")
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    (folder / "a" / "z.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="a link that leads out of the folder"):
        Folders(folder).studies()[4].read()
    with pytest.raises(UserError, match=r"finds nothing in a/z\.png"):
        Folders(folder, patient=r"p\d").studies()[4].read()
