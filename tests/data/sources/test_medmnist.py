"""A MedMNIST file: captions by class, and what becomes of the splits where there is no test file."""

import numpy as np
import pytest

from medjax.data.build import Options, build_dataset
from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.sources import MedMNIST
from medjax.errors import UserError


@pytest.fixture
def write(tmp_path, rng):
    def make(**counts):
        arrays = {}
        for key, n in counts.items():
            arrays[f"{key}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
            arrays[f"{key}_labels"] = (np.arange(n) % 3 == 0).astype(np.uint8)[:, None]
        np.savez(tmp_path / "p.npz", **arrays)
        return tmp_path / "p.npz", arrays

    return make


def splits(source) -> list[str]:
    return [s.split for s in source.studies()]


def test_with_a_test_file_the_splits_are_the_archives(write):
    path, _ = write(train=30, val=10, test=5)
    assert splits(MedMNIST(path)) == ["train"] * 30 + ["validation"] * 10 + ["test"] * 5
    assert not any("No test file" in note for note in MedMNIST(path).schema.notes)


def test_without_one_validation_is_the_test_and_a_tenth_of_train_the_validation(write):
    path, _ = write(train=40, val=10)
    source = MedMNIST(path)
    found = splits(source)
    assert found[40:] == ["test"] * 10
    assert sorted(found[:40]) == ["train"] * 36 + ["validation"] * 4
    assert found == splits(MedMNIST(path)) != splits(MedMNIST(path, seed=1))
    assert any("No test file" in note for note in source.schema.notes)


def test_pixels_labels_and_captions_belong_together(write):
    path, arrays = write(train=30, val=10)
    source = MedMNIST(path)
    finding = source.schema.findings["pneumonia"]
    for i, study in enumerate(source.studies()[:30]):
        example = study.read()
        label = arrays["train_labels"][i, 0]
        np.testing.assert_array_equal(np.asarray(decode(example.items["image"][0])), arrays["train_images"][i])
        assert example.labels == {"pneumonia": label}
        assert decode_text(example.items["text"][0]) in (finding.positive if label else finding.negative)


def test_there_are_no_patients_and_the_manifest_says_so(write, tmp_path):
    path, _ = write(train=40, val=10)
    manifest = build_dataset(MedMNIST(path), tmp_path / "data", Options(), lambda done, total: None)
    assert not manifest.patients_known and any("No patient ids" in n for n in manifest.notes)
    assert all(s.patients == s.examples for s in manifest.splits.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is no .npz"), (b"PK\x03\x04 torn", "is no .npz"), (b"plain text", "is no .npz")],
)
def test_files_that_are_no_npz_are_named(tmp_path, content, message):
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(UserError, match=rf"p\.npz {message}"):
        MedMNIST(tmp_path / "p.npz").studies()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(x=np.zeros(3)), "lacks train_images and train_labels; it holds x"),
        (dict(train_images=np.zeros((2, 4, 4), np.uint8), train_labels=np.zeros(3)), "2 train images and 3 labels"),
        (
            dict(
                train_images=np.zeros((2, 4, 4), np.uint8),
                train_labels=np.zeros(2),
                val_images=np.zeros((2, 4, 4), np.uint8),
            ),
            "2 val images and 0 labels",
        ),
        (dict(train_images=np.zeros((2, 4, 4)), train_labels=np.zeros(2)), "type float64; they must be uint8"),
        (dict(train_images=np.array([object()]), train_labels=np.zeros(1)), "plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(UserError, match=message):
        MedMNIST(tmp_path / "p.npz").studies()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        MedMNIST(tmp_path / "none.npz").studies()


def test_a_data_set_without_captions_is_answered_with_those_that_have_some(tmp_path):
    with pytest.raises(UserError, match=r"no captions for 'bloodmnist'.*pneumoniamnist"):
        MedMNIST(tmp_path / "p.npz", "bloodmnist")


def test_pneumoniamnist_has_its_documented_counts(test_data, tmp_path):
    path = test_data / "cxr_pneumoniamnist" / "pneumoniamnist_dev.npz"
    manifest = build_dataset(MedMNIST(path), tmp_path, Options(), lambda done, total: None)
    assert {k: s.examples for k, s in manifest.splits.items()} == {"train": 4229, "validation": 469, "test": 524}
    assert manifest.splits["test"].positive == {"pneumonia": 389}
    assert not manifest.patients_known
