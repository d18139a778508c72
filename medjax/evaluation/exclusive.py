"""Probes of classes that exclude each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.errors import UserError
from medjax.evaluation import multiclass
from medjax.evaluation.bootstrap import Interval, patient_weights, summarise
from medjax.evaluation.probe import Features
from medjax.evaluation.recipes import Recipe


@dataclass(frozen=True)
class ClassesResult:
    """scores: those of `multiclass.SCORES` on the test split; replicates: of each. chance: what calling every example
    the most frequent class of the training split scores. counts: examples of each class in the test split. left_out:
    examples of each split of which not exactly one class is known to be true."""

    scores: dict[str, Interval]
    replicates: dict[str, np.ndarray]
    chance: dict[str, float]
    counts: dict[str, int]
    left_out: dict[str, int]
    chosen: Any

    def as_dict(self) -> dict:
        """For results.json."""
        scores = {k: v.as_dict() for k, v in self.scores.items()}
        return {**scores, "chance": self.chance, "test_examples": self.counts, "chosen": self.chosen}


def one_class(features: Features, columns: Sequence[int]) -> Features:
    """The labels of these columns alone, where exactly one is true and the others are known; all NaN elsewhere."""
    labels = features.labels[:, columns]
    single = (~np.isnan(labels)).all(axis=1) & ((labels == 1).sum(axis=1) == 1)
    return Features(features.x, np.where(single[:, None], labels, np.nan).astype(np.float32), features.patients)


def classes_probe(
    splits: Mapping[str, Features], label_names: Sequence[str], group: Sequence[str], recipe: Recipe
) -> ClassesResult:
    """Fits a recipe on the classes of `group`, chosen by balanced accuracy on validation, and scores it on test.

    Raises:
      UserError: the training split has a class less, or the test split has no example of exactly one class.
    """
    columns = [list(label_names).index(name) for name in group]
    own = {k: one_class(s, columns) for k, s in splits.items()}
    known = {k: ~np.isnan(s.labels[:, 0]) for k, s in own.items()}
    truth = {k: s.labels[known[k]].argmax(1) for k, s in own.items()}
    lacking = [name for i, name in enumerate(group) if not (truth["train"] == i).any()]
    if lacking or not len(truth["test"]):
        what = f"the training split has no example of {', '.join(lacking)}" if lacking else "the test split has none"
        raise UserError(f"--exclusive={','.join(group)}: of examples with exactly one of them {what}; leave it out")
    x = recipe.normalised({k: s.x for k, s in own.items()})
    fitted = recipe.fit(x, {k: own[k].labels for k in ("train", "validation")}, True)
    weights = patient_weights(own["test"].patients)[:, known["test"]]
    found = fitted.scores["test"][known["test"]].argmax(1)
    replicates = _scores(found, truth["test"], len(group), weights)
    frequent = np.full(len(found), np.bincount(truth["train"]).argmax())
    chance = {k: float(v[0]) for k, v in _scores(frequent, truth["test"], len(group), weights[:1]).items()}
    return ClassesResult(
        {k: summarise(v) for k, v in replicates.items()},
        replicates,
        chance,
        {name: int((truth["test"] == i).sum()) for i, name in enumerate(group)},
        {k: int((~v).sum()) for k, v in known.items()},
        fitted.chosen[0],
    )


def _scores(found: np.ndarray, truth: np.ndarray, classes: int, weights: np.ndarray) -> dict[str, np.ndarray]:
    table = multiclass.confusion(found, truth, classes, weights)
    return {k: of(table) for k, of in multiclass.SCORES.items()}
