"""Corruptions of lab values: float32[F] with NaN for missing -> the same. No benchmark is behind them.

Means and spreads are those of the training split, of the data set's schema.
"""

import numpy as np

from medjax.data.manifest import Modality
from medjax.evaluation.corruptions.base import Corruption

_SLIP, _OUTLIER = 10.0, 5.0


def missing(x: np.ndarray, share: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """share: probability of each value to be missing."""
    return np.where(rng.random(x.shape) < share, np.nan, x).astype(np.float32)


def noise(x: np.ndarray, spreads: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """spreads: of the noise, in spreads of the test."""
    return (x + spreads * _moments(schema)[1] * rng.standard_normal(x.shape)).astype(np.float32)


def unit_slip(x: np.ndarray, share: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """share: probability of each value to be ten times too large or too small, as in a wrong unit."""
    hit, sign = rng.random(x.shape) < share, rng.choice((-1.0, 1.0), x.shape)
    return np.where(hit, x * _SLIP**sign, x).astype(np.float32)


def outliers(x: np.ndarray, share: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """share: probability of each value to lie five spreads above or below the mean of its test."""
    hit, sign = (rng.random(x.shape) < share) & ~np.isnan(x), rng.choice((-1.0, 1.0), x.shape)
    mean, std = _moments(schema)
    return np.where(hit, mean + sign * _OUTLIER * std, x).astype(np.float32)


def _moments(schema: Modality) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([schema.statistics[n][:2] for n in schema.names])
    return values[:, 0], values[:, 1]


LABS = (
    Corruption("missing", missing, (0.1, 0.25, 0.5, 0.75, 0.9)),
    Corruption("noise", noise, (0.1, 0.25, 0.5, 1.0, 2.0)),
    Corruption("unit_slip", unit_slip, (0.05, 0.1, 0.2, 0.35, 0.5)),
    Corruption("outliers", outliers, (0.05, 0.1, 0.2, 0.35, 0.5)),
)
