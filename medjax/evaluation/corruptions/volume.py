"""Corruptions of volumes: a Volume or StoredVolume -> a Volume of float32. No benchmark is behind them.

The range of a volume is from its 0.5th to its 99.5th percentile, of each channel.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from medjax.data.chunks import StoredVolume
from medjax.data.manifest import Modality
from medjax.data.volumes import PERCENTILES, Volume
from medjax.evaluation.corruptions.base import Corruption

# Of voxels [D, H, W, C], a parameter, random numbers, and the low and high end of the range, float32[C].
Change = Callable[[np.ndarray, float, np.random.Generator, np.ndarray, np.ndarray], np.ndarray]


def noise(x: np.ndarray, share: float, rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """share: spread of white noise, of the range."""
    return x + share * (high - low) * rng.standard_normal(x.shape, np.float32)


def blur(x: np.ndarray, voxels: float, rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """voxels: spread of a Gaussian along all three axes."""
    return gaussian_filter(x, voxels, axes=(0, 1, 2), mode="nearest")


def thick_slices(x: np.ndarray, count: int, rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """count: of slices along D that become one, their mean."""
    starts = np.arange(0, len(x), count)
    sizes = np.diff(np.append(starts, len(x)))
    means = np.add.reduceat(x, starts, axis=0) / sizes[:, None, None, None]
    return np.repeat(means, sizes, axis=0)


def bias_field(x: np.ndarray, strength: float, rng: np.random.Generator, low: np.ndarray, high: np.ndarray):
    """strength: largest logarithm of a smooth factor, a random quadratic, of what is above the low end."""
    d, h, w = (np.linspace(-1, 1, n, dtype=np.float32) for n in x.shape[:3])
    d, h, w = d[:, None, None], h[None, :, None], w[None, None, :]
    terms = (d, h, w, d * h, d * w, h * w, d * d, h * h, w * w)
    field = sum(np.float32(c) * t for c, t in zip(rng.standard_normal(len(terms)), terms, strict=True))
    field = field - field.mean()
    return low + (x - low) * np.exp(strength * field / max(np.abs(field).max(), 1e-6))[..., None]


def ghosting(x: np.ndarray, share: float, rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """share: of the intensity that appears displaced along H, to both sides, as from periodic motion in MR."""
    shift = max(1, round(rng.uniform(0.15, 0.35) * x.shape[1]))
    ghosts = (np.roll(x, shift, axis=1) + np.roll(x, -shift, axis=1)) / 2
    return (1 - share) * x + share * ghosts


def intensity_shift(x: np.ndarray, share: float, rng: np.random.Generator, low: np.ndarray, high: np.ndarray):
    """share: of the range, added everywhere or taken away."""
    return x + rng.choice((-1, 1)) * share * (high - low)


def _of(change: Change, item: Volume | StoredVolume, parameter: float, rng: np.random.Generator, schema: Modality):
    percentiles = item.statistics.percentiles
    low, high = (percentiles[:, PERCENTILES.index(p)] for p in (0.5, 99.5))
    voxels = item.values.astype(np.float32).reshape(*item.shape[:3], -1)
    changed = change(voxels, parameter, rng, low, high).astype(np.float32)
    return Volume(changed.reshape(item.shape), item.spacing, item.unit)


VOLUME = (
    Corruption("noise", partial(_of, noise), (0.02, 0.05, 0.1, 0.2, 0.3)),
    Corruption("blur", partial(_of, blur), (0.5, 1.0, 1.5, 2.0, 3.0)),
    Corruption("thick_slices", partial(_of, thick_slices), (2, 3, 4, 6, 8)),
    Corruption("bias_field", partial(_of, bias_field), (0.1, 0.2, 0.3, 0.5, 0.7)),
    Corruption("ghosting", partial(_of, ghosting), (0.1, 0.2, 0.3, 0.4, 0.5)),
    Corruption("intensity_shift", partial(_of, intensity_shift), (0.05, 0.1, 0.2, 0.3, 0.5)),
)
