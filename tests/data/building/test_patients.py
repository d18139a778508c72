"""No patient stands in two splits, of one data set or of several."""

import numpy as np
import pytest
from tiny_source import SCHEMA, TinySource, study

from medjax.data import manifest as manifests
from medjax.data.building.build import Options, build_dataset
from medjax.data.building.patients import check_disjoint, read_patients
from medjax.data.ids import hash_id
from medjax.data.manifest import SPLITS
from medjax.data.sources import Study
from medjax.errors import UserError


def build(directory, patients: dict[str, list[str]], schema=SCHEMA, **options):
    """A data set of these patients by split."""
    given = [study(f"study of {p}", split, patient=p) for split, names in patients.items() for p in names]
    build_dataset(TinySource(given, schema), directory, Options(**options), lambda done, total: None)
    return directory


def patients(prefix: str, **more: str) -> dict[str, list[str]]:
    return {s: [f"{prefix}-{s}-{i}" for i in range(3)] + ([more[s]] if s in more else []) for s in SPLITS}


def test_the_list_holds_each_patient_once_by_hash(tmp_path):
    key = b"k" * 16
    directory = build(tmp_path / "a", {**patients("a"), "train": ["x", "y", "x", "z"]}, id_key=key)
    listed = read_patients(directory, manifests.load(directory), "train")
    # A sensitive source is built under pseudonyms, which stand for the same hashes.
    assert listed.tolist() == sorted(int(hash_id(p, key).view(np.uint64)[0]) for p in "xyz")
    assert manifests.load(directory).splits["train"].patients == 3


def test_apart_data_sets_pass(tmp_path):
    directories = [build(tmp_path / n, patients(n), id_key=b"k" * 16) for n in ("a", "b")]
    check_disjoint(directories)


def test_the_same_split_may_share_patients(tmp_path):
    directories = [build(tmp_path / n, patients("a"), id_key=b"k" * 16) for n in ("a", "b")]
    check_disjoint(directories)


@pytest.mark.parametrize("other", ["validation", "test"])
def test_a_patient_of_two_splits_of_two_data_sets_is_refused(tmp_path, other):
    one = build(tmp_path / "a", patients("a", train="shared"), id_key=b"k" * 16)
    two = build(tmp_path / "b", patients("b", **{other: "shared"}), id_key=b"k" * 16)
    with pytest.raises(UserError, match=rf"1 patients of train of 'tiny' also stand in {other} of 'tiny'") as error:
        check_disjoint([one, two])
    assert "shared" not in str(error.value)


def test_other_keys_and_other_spaces_cannot_be_compared(tmp_path):
    options = [dict(id_key=b"k" * 16), dict(id_key=b"j" * 16), dict(id_key=b"k" * 16, patient_space="another")]
    splits = [patients("a", train="shared"), patients("b", test="shared"), patients("c", test="shared")]
    check_disjoint([build(tmp_path / str(i), p, **o) for i, (p, o) in enumerate(zip(splits, options, strict=True))])


def test_a_study_whose_record_names_another_patient_does_not_slip_through(tmp_path):
    """The splits were made of the patients that the studies name."""
    given = [study(s, s) for s in SPLITS]
    slip = study("slip", "test", patient="patient of train")
    given.append(Study("slip", "someone", "test", slip.read))
    with pytest.raises(UserError, match="1 patients of train also stand in test"):
        build_dataset(TinySource(given), tmp_path, Options(id_key=b"k" * 16), lambda done, total: None)
    assert not (tmp_path / manifests.FILE).exists()


def test_a_damaged_list_is_noticed(tmp_path):
    directory = build(tmp_path / "a", patients("a"), id_key=b"k" * 16)
    path = directory / "patients-test.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"patients-test\.npy differs from its checksum"):
        manifests.verify(manifests.load(directory), directory)
    path.unlink()
    with pytest.raises(UserError, match=r"patients-test\.npy .*is missing"):
        check_disjoint([directory])
