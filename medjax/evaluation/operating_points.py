"""Thresholds that are chosen on one split, and what they give on another."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medjax.evaluation.bootstrap import Interval, summarise

YOUDEN, MAX_F1, FIXED = "youden", "max_f1", "sensitivity"
SAYS = {
    YOUDEN: "largest sensitivity + specificity",
    MAX_F1: "largest F1",
    FIXED: "highest threshold of at least the sensitivity asked for",
}


@dataclass(frozen=True)
class OperatingPoint:
    """how: in `SAYS`. threshold: a study is called positive from this score on. rates: as `rates` names them."""

    how: str
    threshold: float
    rates: dict[str, Interval]

    def as_dict(self) -> dict:
        """For results.json."""
        return {"threshold": self.threshold, **{k: v.as_dict() for k, v in self.rates.items()}}


def choose(scores: np.ndarray, labels: np.ndarray, sensitivity: float) -> dict[str, float]:
    """The threshold of each way of choosing, of the distinct scores; of equally good ones the highest.

    scores: float[n]. labels: bool[n], both classes there. sensitivity: the least that "sensitivity" may have.
    """
    thresholds = np.unique(scores)[::-1]
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    found, called = np.cumsum(labels[order])[last], last + 1
    positives, negatives = labels.sum(), (~labels).sum()
    recall, specificity = found / positives, 1 - (called - found) / negatives
    f1 = 2 * found / (called + positives)
    return {
        YOUDEN: float(thresholds[np.argmax(recall + specificity)]),
        MAX_F1: float(thresholds[np.argmax(f1)]),
        FIXED: float(thresholds[np.argmax(recall >= sensitivity - 1e-12)]),
    }


def rates(called: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """float64[r] each, NaN where undefined: sensitivity, specificity, ppv, npv, balanced_accuracy and f1 of calls
    bool[n] under weights [r, n]."""
    tp, fp = weights @ (called & labels), weights @ (called & ~labels)
    fn, tn = weights @ (~called & labels), weights @ (~called & ~labels)
    out = {"sensitivity": _share(tp, fn), "specificity": _share(tn, fp), "ppv": _share(tp, fp), "npv": _share(tn, fn)}
    out["balanced_accuracy"] = (out["sensitivity"] + out["specificity"]) / 2
    return out | {"f1": _share(2 * tp, fp + fn)}


def operating_points(
    validation: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    sensitivity: float,
) -> list[OperatingPoint]:
    """Chosen on `validation`, measured on `test`; each is scores float[n] and labels bool[n]. weights: of `test`."""
    chosen: Mapping[str, float] = choose(*validation, sensitivity)
    scores, labels = test
    points = []
    for how, threshold in chosen.items():
        found = rates(scores >= threshold, labels, weights)
        points.append(OperatingPoint(how, threshold, {k: summarise(v) for k, v in found.items()}))
    return points


def _share(part: np.ndarray, rest: np.ndarray) -> np.ndarray:
    return np.divide(part, part + rest, out=np.full(part.shape, np.nan), where=part + rest > 0)
