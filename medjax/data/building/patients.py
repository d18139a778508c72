"""The hashed ids of the patients of each split, and the check that no patient stands in two, across data sets too."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.data.manifest import Manifest, load
from medjax.data.records import publish, temporary
from medjax.data.remote import local_file
from medjax.errors import UserError


def write_patients(directory: Path, split: str, ids: np.ndarray) -> dict:
    """Writes `patients-{split}.npy`, the sorted ids uint64[n]; returns its file, bytes and sha256 for the manifest."""
    path = directory / f"patients-{split}.npy"
    written = temporary(path)
    with written.open("wb") as f:
        np.save(f, np.unique(np.asarray(ids, np.uint64)), allow_pickle=False)
    return {"file": path.name} | publish(written, path)


def read_patients(directory: Path, manifest: Manifest, split: str) -> np.ndarray:
    """uint64[n]: the sorted hashed ids of a split's patients.

    Raises:
      UserError: the data set has no list of them, or it is damaged.
    """
    entry = manifest.splits[split].patient_ids
    if not entry:
        raise UserError(f"data set {manifest.name!r} in {directory} has no list of its patients; build it again")
    try:
        return np.load(local_file(directory, entry), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / entry['file']} cannot be read ({error}); build the data set again") from None


def check_disjoint(directories: Sequence[str | Path]) -> None:
    """Raises UserError where a patient stands in one split of a data set and in another split of the same or another.

    Only data sets whose ids are hashed with the same key and are ids of the same kind (`Manifest.id_key`,
    `patient_space`) can be compared; those without patients have none to compare.
    """
    opened = [(Path(d), load(d)) for d in dict.fromkeys(map(Path, directories))]
    by_space: dict[tuple[str, str], list[tuple[str, str, np.ndarray]]] = {}
    for directory, manifest in opened:
        if manifest.patients_known:
            listed = by_space.setdefault((manifest.id_key, manifest.patient_space), [])
            listed += [(manifest.name, s, read_patients(directory, manifest, s)) for s in manifest.splits]
    for listed in by_space.values():
        for (one, split, ids), (other, other_split, other_ids) in itertools.combinations(listed, 2):
            if split != other_split:
                check_apart(f"{split} of {one!r}", ids, f"{other_split} of {other!r}", other_ids)


def check_apart(one: str, ids: np.ndarray, other: str, other_ids: np.ndarray) -> None:
    """Raises UserError where two sets of hashed ids have one in common."""
    common = np.intersect1d(ids, other_ids, assume_unique=True)
    if common.size:
        raise UserError(
            f"{common.size} patients of {one} also stand in {other}, the first with the hashed id {common[0]:016x}; "
            "split all data sets with --split=random and the same --split_seed, or, if equal ids name different "
            "people, build them with different --patient_space"
        )
