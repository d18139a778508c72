"""How much worse a score becomes under corruption: balanced errors, and their ratios to those of a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.evaluation.bootstrap import summarise

FLAGGED = 0.01  # a denominator nearer to 0 says more about the baseline's luck than about the model


def balanced_error(scores: np.ndarray, labels: np.ndarray, threshold: float, weights: np.ndarray) -> np.ndarray:
    """float64[r]: 1 - (sensitivity + specificity) / 2 of `scores > threshold`; NaN where a class has no weight.

    scores: [n]. labels: bool[n]. weights: [r, n], how often each example counts.
    """
    said = scores > threshold
    totals = weights @ np.stack([labels, ~labels, said & labels, ~said & ~labels], axis=1).astype(np.float64)
    positive, negative, hits, rejections = totals.T
    both = (positive > 0) & (negative > 0)
    rates = hits / np.where(both, positive, 1) + rejections / np.where(both, negative, 1)
    return np.where(both, 1 - rates / 2, np.nan)


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of least balanced error (Youden's), halfway between two scores; the lowest of equals.

    scores: [n]. labels: bool[n], of both classes.
    """
    values = np.unique(scores)
    middles = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    sensitivity = 1 - np.searchsorted(np.sort(scores[labels]), middles, side="right") / labels.sum()
    specificity = np.searchsorted(np.sort(scores[~labels]), middles, side="right") / (~labels).sum()
    return float(middles[np.argmax(sensitivity + specificity)])


@dataclass(frozen=True)
class Curve:
    """A score under one corruption. value, error: `{level: float64[1 + r]}`, level 0 being the intact split; the first
    of each is the value itself, the others its bootstrap replicates, paired over levels. monotone: see `Corruption`.
    """

    kind: str
    value: dict[int, np.ndarray]
    error: dict[int, np.ndarray]
    monotone: bool = True

    @property
    def levels(self) -> list[int]:
        """Without 0."""
        return [level for level in self.value if level]

    @property
    def drop(self) -> np.ndarray:
        """float64[1 + r]: of the value, mean over levels."""
        return self.value[0] - np.mean([self.value[k] for k in self.levels], axis=0)

    @property
    def mean_error(self) -> np.ndarray:
        """float64[1 + r]: over levels; MedMNIST-C's BE of a corruption before it is divided by the baseline's."""
        return np.mean([self.error[k] for k in self.levels], axis=0)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "levels": {str(k): summarise(v).as_dict() for k, v in self.value.items() if k},
            "drop": summarise(self.drop).as_dict(),
            "error_by_level": {str(k): round(float(v[0]), 6) for k, v in self.error.items() if k},
            "error": summarise(self.mean_error).as_dict(),
            "monotone": self.monotone,
        }


def mean_over(curves: Sequence[Curve], kind: str = "mean") -> Curve:
    """The mean of several corruptions at each level that all of them have."""
    levels = [k for k in curves[0].value if all(k in c.value for c in curves)]
    value = {k: np.mean([c.value[k] for c in curves], axis=0) for k in levels}
    return Curve(kind, value, {k: np.mean([c.error[k] for c in curves], axis=0) for k in levels})


@dataclass(frozen=True)
class Relative:
    """Errors as parts of a baseline's. be, rbe: by corruption (None: a denominator of 0). denominators: of rbe.
    flagged: corruptions whose denominator is under `FLAGGED`, which mean_rbe leaves out. mce: 100 for the baseline.
    """

    be: dict[str, float | None]
    rbe: dict[str, float | None]
    denominators: dict[str, float]
    flagged: tuple[str, ...]
    mean_be: float | None
    mean_rbe: float | None
    mce: float | None

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {**self.__dict__, "flagged": list(self.flagged)}


def relative(
    errors: Mapping[str, Sequence[float]], clean: float, base: Mapping[str, Sequence[float]], base_clean: float
) -> Relative:
    """MedMNIST-C's (arXiv 2406.17536) `BE_c = sum_s e_cs / sum_s b_cs` and `RBE_c = (mean_s e_cs - e) / (mean_s b_cs -
    b)`, e being errors of the model and b of the baseline, and ImageNet-C's mCE (arXiv 1903.12261), 100 times the mean
    of BE_c. A baseline that a corruption does not hurt has an RBE without meaning, hence the flags.

    errors, base: `{corruption: [error at each level]}`, of the same corruptions and levels. clean, base_clean: errors
    on the intact split.
    """
    means = {k: float(np.mean(v)) for k, v in errors.items()}
    base_means = {k: float(np.mean(base[k])) for k in errors}
    denominators = {k: round(v - base_clean, 6) for k, v in base_means.items()}
    be = {k: _ratio(means[k], base_means[k]) for k in means}
    rbe = {k: _ratio(means[k] - clean, base_means[k] - base_clean) for k in means}
    flagged = tuple(k for k, v in denominators.items() if abs(v) < FLAGGED)
    kept = [v for k, v in rbe.items() if k not in flagged and v is not None]
    known = [v for v in be.values() if v is not None]
    mean_be = round(float(np.mean(known)), 6) if known else None
    mean_rbe = round(float(np.mean(kept)), 6) if kept else None
    mce = None if mean_be is None else round(100 * mean_be, 4)
    return Relative(be, rbe, denominators, flagged, mean_be, mean_rbe, mce)


def _ratio(over: float, under: float) -> float | None:
    return round(over / under, 6) if under else None
