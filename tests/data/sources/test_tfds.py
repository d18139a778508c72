"""TFDS data sets: one of theirs read, one of ours written and read back, and no TensorFlow in either."""

import sys

import numpy as np
import pytest
from archives import build

from medjax.data.building.tfds_builder import tfds_builder
from medjax.data.manifest import Modality, load
from medjax.data.readers.image import decode, encode_png
from medjax.data.readers.leads import LEADS
from medjax.data.records import Example, decode_text, encode_text
from medjax.data.sources import Columns
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.tfds import Tfds
from medjax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
tfds.disable_progress_bar()


class Theirs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set as others define them: arrays, texts, classes, nested features."""

    name = "theirs"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        f = tfds.features
        features = f.FeaturesDict(
            {
                "picture": f.Tensor(shape=(4, 5, 1), dtype=np.uint8),
                "caption": f.Text(),
                "finding": f.ClassLabel(names=["none", "effusion"]),
                "about": {"subject": f.Text(), "age": f.Scalar(np.float32), "sick": f.Scalar(np.int64)},
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(n) for name, n in (("train", 6), ("val", 2), ("test", 4))}

    def _generate_examples(self, n):
        for i in range(n):
            about = {"subject": f"subject {n}{i // 2}", "age": 50.0 + i, "sick": i % 3 - 1}
            picture = np.full((4, 5, 1), 10 * i, np.uint8)
            yield i, {"picture": picture, "caption": f"caption {i}", "finding": i % 2, "about": about}


COLUMNS = Columns(
    image=("picture",),
    text=("caption",),
    numeric=("about/age",),
    label=("finding", "about/sick"),
    patient="about/subject",
)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    builder = Theirs(data_dir=str(tmp_path_factory.mktemp("tfds")), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


def test_features_become_items_and_labels(theirs):
    source = Tfds(theirs, COLUMNS)
    assert source.schema.labels == ("none", "effusion", "about/sick") and source.schema.name == "theirs"
    seen = {}
    for study in source.studies():
        example = study.read()
        number = int(decode_text(example.items["text"][0]).split()[-1])
        assert np.asarray(decode(example.items["image"][0])).tolist() == [[10 * number] * 5] * 4
        np.testing.assert_array_equal(example.items["labs"][0], np.float32([50 + number]))
        sick = {0: np.nan, 1: 0.0, 2: 1.0}[number % 3]  # -1 is neither 0 nor 1
        np.testing.assert_equal(list(example.labels.values()), [1.0 - number % 2, number % 2, sick])
        seen[study.split, number] = study.patient
    assert len(seen) == 12 and seen["train", 4] == seen["train", 5] == "subject 62"


def test_a_data_set_is_built_from_theirs(theirs, tmp_path):
    manifest = build(Tfds(theirs, COLUMNS, licence="CC-BY-4.0"), tmp_path)
    assert {k: (s.examples, s.patients) for k, s in manifest.splits.items()} == {
        "train": (6, 3),
        "validation": (2, 1),
        "test": (4, 2),
    }


def test_a_feature_of_another_name_is_answered_with_the_nearest(theirs):
    with pytest.raises(UserError, match="no feature 'captions'; did you mean 'caption'"):
        Tfds(theirs, Columns(text=("captions",))).studies()
    with pytest.raises(UserError, match="no feature 'about/name'"):
        Tfds(theirs, Columns(text=("about/name",))).studies()


def test_what_is_no_prepared_data_set_is_named(tmp_path):
    with pytest.raises(UserError, match=r"features\.json is missing"):
        Tfds(tmp_path, COLUMNS).studies()


def test_a_damaged_description_is_named(theirs, tmp_path):
    for path in theirs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="cannot be opened by TFDS"):
        Tfds(tmp_path, COLUMNS).studies()


class Ours:
    """Examples with no, one or two items, missing values, and unknown labels."""

    schema = Schema(
        name="Our set",
        source="made up",
        licence="CC0-1.0",
        modalities={
            "image": Modality("image"),
            "ecg": Modality("ecg", LEADS, ("mV",) * 12, 100.0),
            "labs": Modality("labs", ("a/b", "c, d"), ("g", "g")),
            "text": Modality("text"),
        },
        labels=("sick", "well"),
        sensitive=False,
    )

    def studies(self):
        return [
            Study(f"s{i}", f"p{i // 2}", ("train", "train", "validation", "test")[i // 2], lambda i=i: self.example(i))
            for i in range(8)
        ]

    def example(self, i: int) -> Example:
        rng = np.random.default_rng(i)
        pictures = [encode_png(rng.integers(0, 256, (6, 7)).astype(np.uint8)) for _ in range(i % 3)]
        ecg = [rng.normal(size=(12, 30 + i)).astype(np.float32)] if i % 2 else []
        items = {
            "image": pictures,
            "ecg": ecg,
            "labs": [np.array([i, np.nan], np.float32)],
            "text": [encode_text(f"report {i}, µV\0")],
        }
        labels = {"sick": float(i % 2), "well": float("nan")}
        return Example(f"s{i}", f"p{i // 2}", {m: x for m, x in items.items() if x}, time=i / 4, labels=labels)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    build(Ours(), folder / "data")
    builder = tfds_builder(folder / "data", folder / "tfds")
    builder.download_and_prepare()
    return builder.data_path


def test_ours_is_written_with_its_manifest(written):
    info = tfds.builder_from_directory(written).info
    assert info.name == "our_set" and {k: s.num_examples for k, s in info.splits.items()} == {
        "train": 4,
        "validation": 2,
        "test": 2,
    }
    assert info.metadata["medjax"]["modalities"]["labs"]["names"] == ["a/b", "c, d"]
    assert info.metadata["medjax"]["licence"] == "CC0-1.0"


def test_ours_comes_back_item_for_item(written):
    source = Tfds(written, Columns(image=("image",), ecg=("ecg",), text=("text",), label=("labels",), time="time"))
    assert source.schema.labels == ("sick", "well")
    found = {}
    for study in source.studies():
        example = study.read()
        number = round(example.time * 4)
        expected = Ours().example(number)
        assert study.split == Ours().studies()[number].split
        for m in ("image", "ecg"):
            assert len(example.items.get(m, [])) == len(expected.items.get(m, []))
            for got, want in zip(example.items.get(m, []), expected.items.get(m, []), strict=True):
                np.testing.assert_array_equal(got, want)
        assert decode_text(example.items["text"][0]) == f"report {number}, µV\0"
        np.testing.assert_equal(example.labels, expected.labels)
        found[number] = example
    assert sorted(found) == list(range(8))


def test_neither_way_imported_tensorflow(written, theirs):
    Tfds(written, Columns(text=("text",))).studies()[0].read()
    Tfds(theirs, COLUMNS).studies()[0].read()
    assert "tensorflow" not in sys.modules


def test_volumes_are_refused(tmp_path, monkeypatch):
    build(Ours(), tmp_path / "data")
    manifest = load(tmp_path / "data")
    manifest.modalities["volume"] = Modality("volume")
    monkeypatch.setattr("medjax.data.building.tfds_builder.manifests.load", lambda directory: manifest)
    with pytest.raises(UserError, match="'volume' is none of them"):
        tfds_builder(tmp_path / "data", tmp_path / "tfds")
