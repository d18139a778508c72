"""What every recipe of a probe gives back, and how validation chooses among its settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medjax.evaluation import metrics, multiclass


@dataclass(frozen=True)
class Fitted:
    """scores: `{"validation": float[m, K], "test": float[n, K]}`, higher for likelier. chosen: the setting that
    validation chose for each of the K columns, or one for all of an exclusive group."""

    scores: dict[str, np.ndarray]
    chosen: list[Any]


class Fit(Protocol):
    """Fits on "train", chooses on "validation"."""

    def __call__(self, x: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], exclusive: bool) -> Fitted:
        """x: `{"train", "validation", "test": float[n, D]}`. labels: `{"train", "validation": float32[n, K]}`, 0 or 1,
        NaN unknown; of an exclusive group one-hot or, where unknown, NaN throughout."""


def known_rows(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a column of labels is known, bool[n], and its values there, bool[k]."""
    known = ~np.isnan(column)
    return known, column[known] == 1


def value(scores: np.ndarray, labels: np.ndarray, exclusive: bool) -> float:
    """What settings are compared by: the AUROC of a column, float[n] each, or the balanced accuracy of an exclusive
    group, float[n, K] each; 0 where a column lacks a class, so that the first setting stands."""
    if exclusive:
        known = ~np.isnan(labels[:, 0])
        truth, found = labels[known].argmax(1), scores[known].argmax(1)
        if not len(truth):
            return 0.0
        table = multiclass.confusion(found, truth, labels.shape[1], np.ones((1, len(truth))))
        return float(multiclass.balanced_accuracy(table)[0])
    known, truth = known_rows(labels)
    if truth.all() or not truth.any():
        return 0.0
    return float(metrics.auroc(scores[known], truth, np.ones((1, len(truth))))[0])


def first_best(settings: Sequence[Any], value_of: Callable[[Any], float]) -> Any:
    """The setting of the highest value; of several the first."""
    return max(settings, key=value_of)
