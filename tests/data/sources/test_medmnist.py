"""A MedMNIST file: captions by class, and what becomes of the splits where there is no test file."""

from collections import Counter

import numpy as np
import pytest

from medjax.data.building.build import Options, build_dataset
from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.sources import MedMNIST
from medjax.data.sources.medmnist_classes import CLASSES
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


def test_an_unknown_data_set_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"no captions for 'bloodmist'; did you mean 'bloodmnist'\?"):
        MedMNIST(tmp_path / "p.npz", "bloodmist")


def save(path, shape, labels, per_split=6):
    rng = np.random.default_rng(1)
    arrays = {
        f"{k}_images": rng.integers(0, 256, (per_split, *shape), dtype=np.uint8) for k in ("train", "val", "test")
    }
    np.savez_compressed(path, **arrays, **{f"{k}_labels": labels for k in ("train", "val", "test")})
    return arrays


@pytest.mark.parametrize("name", [n for n, c in CLASSES.items() if not c.volume])
@pytest.mark.parametrize("shape", [(64, 64), (32, 32, 3)])
def test_every_data_set_of_pictures_in_every_size(tmp_path, name, shape):
    classes = CLASSES[name]
    n = len(classes.names)
    labels = np.eye(n, dtype=np.uint8) if classes.multi_label else np.arange(n)[:, None]
    arrays = save(tmp_path / "p.npz", shape, labels, per_split=n)
    source = MedMNIST(tmp_path / "p.npz", name)
    examples = [study.read() for study in source.studies()[:n]]
    for example, pixels in zip(examples, arrays["train_images"], strict=True):
        got = decode(example.items["image"][0], channels=(len(pixels.shape[2:]) and 3) or 1)
        np.testing.assert_array_equal(np.asarray(got), pixels)
    texts = [decode_text(x.items["text"][0]) for x in examples]
    schema = source.schema
    assert len(set(texts)) == n and schema.labels == tuple(schema.findings)
    held = np.array([[x.labels[k] for k in schema.labels] for x in examples])
    if n == 2:
        assert sorted(held[:, 0]) == [0, 1]
    else:
        np.testing.assert_array_equal(held, np.eye(n))
    for finding, column in zip(schema.findings.values(), held.T, strict=True):
        assert finding.seen_in == ("image",) and not set(finding.positive) & set(finding.negative)
        assert texts[int(column.argmax())] in finding.positive


def test_a_chest_picture_has_several_findings_or_none(tmp_path):
    labels = np.zeros((6, 14), np.uint8)
    labels[0, [2, 6]] = 1
    save(tmp_path / "p.npz", (28, 28), labels)
    several, none = (s.read() for s in MedMNIST(tmp_path / "p.npz", "chestmnist").studies()[:2])
    assert {k for k, v in several.labels.items() if v} == {"effusion", "pneumonia"}
    assert "effusion, pneumonia" in decode_text(several.items["text"][0])
    assert not any(none.labels.values()) and "no finding" in decode_text(none.items["text"][0])


def test_volumes_keep_their_voxels_and_say_that_their_spacing_is_unknown(tmp_path):
    arrays = save(tmp_path / "p.npz", (8, 9, 10), np.arange(6)[:, None] % 2)
    source = MedMNIST(tmp_path / "p.npz", "nodulemnist3d")
    example = source.studies()[3].read()
    np.testing.assert_array_equal(example.items["volume"][0].values, arrays["train_images"][3])
    assert example.items["volume"][0].spacing == (1, 1, 1) and example.labels == {"malignant nodule": 1}
    assert any("spacing" in note for note in source.schema.notes)


def test_the_malignant_class_is_the_finding_of_breast_pictures(tmp_path):
    save(tmp_path / "p.npz", (28, 28), np.array([[0], [1]] * 3))
    source = MedMNIST(tmp_path / "p.npz", "breastmnist")
    assert [s.read().labels for s in source.studies()[:2]] == [{"malignant tumour": 1}, {"malignant tumour": 0}]


@pytest.mark.parametrize(
    ("name", "shape", "labels", "message"),
    [
        ("bloodmnist", (28, 28, 3), np.full((6, 1), 8), r"labels that are not 1 of 0\.\.7"),
        ("bloodmnist", (28, 28, 3), np.full((6, 1), -1), r"labels that are not 1 of 0\.\.7"),
        ("chestmnist", (28, 28), np.zeros((6, 13)), r"labels that are not 14 of 0\.\.1"),
        ("nodulemnist3d", (28, 28), np.zeros((6, 1)), r"those of nodulemnist3d are \[N, D, H, W\]"),
        ("bloodmnist", (28, 28, 28), np.zeros((6, 1)), r"those of bloodmnist are \[N, H, W\]"),
    ],
)
def test_another_data_sets_arrays_are_refused(tmp_path, name, shape, labels, message):
    save(tmp_path / "p.npz", shape, labels)
    with pytest.raises(UserError, match=message):
        MedMNIST(tmp_path / "p.npz", name).studies()


def test_a_picture_that_is_damaged_is_one_rejection(tmp_path):
    arrays = save(tmp_path / "p.npz", (28, 28), np.zeros((6, 1), np.uint8))
    np.savez(tmp_path / "p.npz", **arrays, **{f"{k}_labels": np.zeros((6, 1)) for k in ("train", "val", "test")})
    studies = MedMNIST(tmp_path / "p.npz").studies()
    data = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(data[: data.index(arrays["test_images"].tobytes()) + 28 * 28])
    for study in studies[-6:]:
        with pytest.raises(UserError, match=r"p\.npz is no \.npz"):
            study.read()


def test_pneumoniamnist_has_its_documented_counts(test_data):
    source = MedMNIST(test_data / "cxr_pneumoniamnist" / "pneumoniamnist_dev.npz")
    studies = source.studies()
    assert Counter(s.split for s in studies) == {"train": 4229, "validation": 469, "test": 524}
    assert sum(s.read().labels["pneumonia"] for s in studies if s.split == "test") == 389
    assert not source.schema.patients_known
