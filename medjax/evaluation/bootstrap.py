"""Intervals by resampling patients, since studies of one patient are not independent."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

REPLICATES = 1000


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % bootstrap interval over patients."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For results.json; null where there is no number."""
        return {k: round(float(v), 6) if np.isfinite(v) else None for k, v in asdict(self).items()}

    @classmethod
    def of(cls, values: Mapping[str, float | None]) -> "Interval":
        """The inverse of `as_dict`."""
        return cls(**{k: float("nan") if v is None else v for k, v in values.items()})

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def patient_weights(patients: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """float64[1 + replicates, n]: how often each example counts; the first row counts each once.

    patients: int[n], an example's patient. Each replicate draws as many patients as there are, with replacement; with
    none there is a value without an interval.
    """
    if not replicates:
        return np.ones((1, len(patients)))
    count = int(patients.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    return np.concatenate([np.ones((1, len(patients))), draws[:, patients]])


def summarise(values: np.ndarray) -> Interval:
    """From the value (first) and its replicates."""
    replicates = values[1:][np.isfinite(values[1:])]
    if not replicates.size:
        return Interval(float(values[0]), float("nan"), float("nan"))
    low, high = np.percentile(replicates, (2.5, 97.5))
    return Interval(float(values[0]), float(low), float(high))


def average(values: Sequence[np.ndarray]) -> np.ndarray:
    """float64[1 + r]: the mean of several metrics in each replicate, over those that have a value there."""
    values_kr = np.stack(values)
    known = np.isfinite(values_kr)
    total, count = np.where(known, values_kr, 0.0).sum(0), known.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def number_patients(ids: np.ndarray) -> np.ndarray:
    """int[n] from hashed patient ids uint32[n, 2]."""
    return np.unique(ids, axis=0, return_inverse=True)[1].reshape(-1)


def verdict(difference: Interval) -> str:
    """What a paired difference says, in words."""
    if not np.isfinite(difference.low) or difference.low <= 0 <= difference.high:
        return "not resolvable on this data"
    return "better" if difference.value > 0 else "worse"
