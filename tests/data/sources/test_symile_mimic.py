"""Symile-MIMIC's tensors, written here as the code of the publication writes them."""

import numpy as np
import pytest
from archives import build, write_table

from medjax.data.readers.image import decode
from medjax.data.sources.symile_mimic import ITEMS, SymileMimic
from medjax.errors import UserError

MEAN, STD = (np.array(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
SIZES = {"train": 6, "val": 2, "test": 4}


@pytest.fixture
def archive(tmp_path, rng):
    """Three splits; the test split has two queries and, for each, the other as its candidate. Returns the pictures."""
    pictures = {}
    for number, (split, n) in enumerate(SIZES.items()):
        admission = [20 + 10 * number + i for i in range(n)]
        rows = [{"subject_id": 100 + a, "hadm_id": a, "Edema": "1.0", "No Finding": ""} for a in admission]
        if split == "test":
            rows[2:] = [dict(rows[1]), dict(rows[0])]
            for i, row in enumerate(rows):
                row |= {"label_hadm_id": admission[i % 2], "label": int(i < 2)}
        write_table(tmp_path / f"{split}.csv", rows)
        pixels = rng.integers(0, 256, (n, 1, 320, 320)).astype(np.uint8)
        pictures[split] = pixels[:, 0]
        observed = rng.integers(0, 2, (n, 50))
        observed[:, 0] = 1
        arrays = {
            "cxr": ((pixels / 255 - MEAN) / STD).astype(np.float32),
            "ecg": rng.uniform(-1, 1, (n, 1, 5000, 12)).astype(np.float32),
            "labs_percentiles": rng.uniform(0, 1, (n, 50)).astype(np.float32),
            "labs_missingness": observed,
            "hadm_id": np.array([row["hadm_id"] for row in rows]),
        }
        folder = tmp_path / "data_npy" / split
        folder.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}_{split}.npy", array)
    return tmp_path, pictures


def read(folder, name, split):
    return np.load(folder / "data_npy" / split / f"{name}_{split}.npy")


def test_pictures_are_what_they_were_before_normalisation(archive):
    folder, pictures = archive
    for i, study in enumerate(SymileMimic(folder).studies()[:3]):
        (png,) = study.read().items["image"]
        np.testing.assert_array_equal(np.asarray(decode(png)), pictures["train"][i])


def test_ecgs_keep_their_scale_and_lead_order(archive):
    folder, _ = archive
    source = SymileMimic(folder)
    (ecg,) = source.studies()[1].read().items["ecg"]
    names = source.schema.modalities["ecg"].names
    np.testing.assert_array_equal(ecg[names.index("aVF")], read(folder, "ecg", "train")[1, 0, :, 4])
    assert ecg.shape == (12, 5000) and set(source.schema.modalities["ecg"].units) == {"of [-1, 1]"}


def test_what_the_indicator_calls_missing_is_missing(archive):
    folder, _ = archive
    for i, study in enumerate(SymileMimic(folder).studies()[:3]):
        (labs,) = study.read().items["labs"]
        observed = read(folder, "labs_missingness", "train")[i] == 1
        np.testing.assert_array_equal(~np.isnan(labs), observed)
        np.testing.assert_array_equal(labs[observed], read(folder, "labs_percentiles", "train")[i][observed])


def test_lab_tests_are_in_the_order_of_their_numbers(archive):
    names = SymileMimic(archive[0]).schema.modalities["labs"].names
    assert list(ITEMS) == sorted(ITEMS) and len(names) == 50
    assert names[ITEMS.index("50912")] == "Creatinine"


def test_queries_are_the_test_split_once(archive):
    splits = [(s.name, s.split) for s in SymileMimic(archive[0]).studies()]
    assert splits[6:] == [
        ("admission 30", "validation"),
        ("admission 31", "validation"),
        ("admission 40", "test"),
        ("admission 41", "test"),
    ]
    assert {split for _, split in splits[:6]} == {"train"}


def test_a_data_set_is_built(archive, tmp_path):
    manifest = build(SymileMimic(archive[0]), tmp_path / "data")
    assert {k: s.examples for k, s in manifest.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    assert manifest.labels == ("No Finding", "Edema") and manifest.splits["train"].positive["Edema"] == 6
    low, high = (manifest.modalities["labs"].percentiles["Creatinine"][i] for i in (0, -1))
    assert 0 <= low <= high <= 1


def test_a_tensor_of_other_admissions_is_refused(archive):
    folder, _ = archive
    np.save(folder / "data_npy" / "val" / "hadm_id_val.npy", np.array([31, 30]))
    with pytest.raises(UserError, match=r"row 1 of val\.csv and of its tensors are different admissions"):
        SymileMimic(folder).studies()


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("ecg", np.zeros((6, 1, 12, 5000), np.float32), r"expected numbers \[n, 1, n, 12\]"),
        ("cxr", np.zeros((5, 3, 8, 8), np.float32), r"has 5 rows and train\.csv 6"),
        ("labs_percentiles", np.array([{}] * 6, object), r"is no \.npy file of numbers"),
    ],
)
def test_tensors_of_another_kind_are_refused(archive, name, array, reason):
    folder, _ = archive
    np.save(folder / "data_npy" / "train" / f"{name}_train.npy", array)
    with pytest.raises(UserError, match=reason):
        SymileMimic(folder).studies()


def test_a_header_that_claims_more_than_the_file_holds_is_refused(archive):
    folder, _ = archive
    path = folder / "data_npy" / "train" / "ecg_train.npy"
    claim = b"(6, 1, 5000, 12), }" + b" " * 6
    assert claim in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(claim, b"(9999999, 1, 5000, 12), }"))
    with pytest.raises(UserError, match=r"ecg_train\.npy is no \.npy file"):
        SymileMimic(folder).studies()


def test_a_radiograph_that_is_not_normalised_is_rejected(archive):
    folder, _ = archive
    np.save(folder / "data_npy" / "val" / "cxr_val.npy", np.full((2, 3, 8, 8), 200, np.float32))
    study = SymileMimic(folder).studies()[6]
    with pytest.raises(UserError, match="not normalised as the archive's code does"):
        study.read()
