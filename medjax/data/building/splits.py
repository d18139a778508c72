"""Patient-disjoint splits: those of the archive, random ones, or the folds of a cross-validation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from medjax.data.manifest import SPLITS
from medjax.data.sources.base import Study
from medjax.errors import UserError, check_choice


@dataclass(frozen=True)
class Splitting:
    """How to split.

    by: "source" keeps the archive's splits and falls back on "random" where it has none; "random" draws patients by
    `fractions` (train, validation, test); "fold" makes patients of fold `fold` of `folds` the test split, those of the
    next fold the validation split. The draw is a hash of seed and patient, so that it does not depend on the order.
    """

    by: str = "source"
    fractions: tuple[float, ...] = (0.7, 0.1, 0.2)
    fold: int = 0
    folds: int = 5
    seed: int = 0

    def __post_init__(self):
        check_choice("split", self.by, ("source", "random", "fold"))
        if len(self.fractions) != 3 or abs(sum(self.fractions) - 1) > 1e-6 or min(self.fractions) < 0:
            raise UserError(f"split fractions must be train, validation, test and sum to 1, got {self.fractions}")
        if not (self.folds >= 3 and 0 <= self.fold < self.folds):
            raise UserError(f"fold must be in 0..{self.folds - 1} of at least 3 folds, got {self.fold} of {self.folds}")


def assign(studies: Sequence[Study], splitting: Splitting) -> list[str]:
    """The split of each study.

    Raises:
      UserError: a study has no split or an unknown one, a patient stands in two splits, or a split is empty.
    """
    if splitting.by == "fold":
        splits = [_fold(study.patient, splitting) for study in studies]
    elif splitting.by == "random" or all(study.split is None for study in studies):
        splits = [_random(study.patient, splitting) for study in studies]
    else:
        for study in studies:
            if study.split not in SPLITS:
                raise UserError(f"{study.name} has the split {study.split!r}; valid: {', '.join(SPLITS)}")
        splits = [str(study.split) for study in studies]
    _check_disjoint(studies, splits)
    for split in SPLITS:
        if split not in splits:
            raise UserError(f"the {split} split is empty; use --split=random, or more examples")
    return splits


def _check_disjoint(studies: Sequence[Study], splits: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    clashes = {}
    for study, split in zip(studies, splits, strict=True):
        if not study.patient:
            continue  # rejected when it is read
        if seen.setdefault(study.patient, split) != split:
            clashes[study.patient] = (seen[study.patient], split)
    if clashes:
        patient, (a, b) = next(iter(clashes.items()))
        raise UserError(
            f"{len(clashes)} patients stand in two splits, the first is {patient!r} in {a} and {b}; "
            "mend the split column or use --split=random, which splits by patient"
        )


def _uniform(patient: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _random(patient: str, splitting: Splitting) -> str:
    u = _uniform(patient, splitting.seed)
    train, validation, _ = splitting.fractions
    return "train" if u < train else "validation" if u < train + validation else "test"


def _fold(patient: str, splitting: Splitting) -> str:
    distance = (int(_uniform(patient, splitting.seed) * splitting.folds) - splitting.fold) % splitting.folds
    return {0: "test", 1: "validation"}.get(distance, "train")
