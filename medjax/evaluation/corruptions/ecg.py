"""Corruptions of ECGs: float32[C, T] in mV, rows of NaN for absent leads -> the same. No benchmark is behind them."""

import numpy as np
from scipy.signal import butter, sosfiltfilt

from medjax.data.manifest import Modality
from medjax.evaluation.corruptions.base import Corruption

_MAINS = 50.0  # Hz
_WANDER = (0.05, 0.5)  # Hz
_BURSTS, _BURST_SECONDS, _MUSCLE = 3, 2.0, 20.0  # a burst's length, and Hz from which muscles are heard


def noise(x: np.ndarray, decibels: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """decibels: signal to white noise, by the power of each lead about its mean."""
    power = np.var(x, axis=1, keepdims=True)
    return _mv(x + np.sqrt(power / 10 ** (decibels / 10)) * rng.standard_normal(x.shape))


def baseline_wander(x: np.ndarray, mv: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """mv: amplitude of the sum of three slow sines, of phases of its own in each lead."""
    t = np.arange(x.shape[1]) / schema.rate
    angle = 2 * np.pi * (rng.uniform(*_WANDER, 3)[:, None] * t + rng.random((len(x), 3, 1)))
    return _mv(x + mv / 3 * np.sin(angle).sum(axis=1))


def powerline(x: np.ndarray, mv: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """mv: amplitude of 50 Hz, of one phase in all leads and of a gain of its own in each; at a rate below 100 Hz it is
    what sampling without a filter makes of it."""
    t, phase = np.arange(x.shape[1]) / schema.rate, rng.uniform(0.25, 0.75) * np.pi
    return _mv(x + mv * rng.uniform(0.5, 1, (len(x), 1)) * np.sin(2 * np.pi * _MAINS * t + phase))


def muscle(x: np.ndarray, mv: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """mv: spread, at their height, of three bursts of noise above 20 Hz (or two fifths of the rate) of two seconds."""
    samples = x.shape[1]
    sos = butter(4, min(_MUSCLE, 0.4 * schema.rate), "highpass", fs=schema.rate, output="sos")
    padding = min(samples - 1, 3 * (2 * len(sos) + 1))
    heard = sosfiltfilt(sos, rng.standard_normal(x.shape), padlen=padding)
    t, middle = np.arange(samples), rng.uniform(0, samples, (_BURSTS, 1))
    near = np.clip(1 - np.abs(t - middle) / (_BURST_SECONDS * schema.rate / 2), 0, 1)
    return _mv(x + mv * heard / heard.std() * np.sin(np.pi / 2 * near).max(axis=0))


def lead_dropout(x: np.ndarray, share: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """share: of the leads that are absent, one at least; one stays."""
    order = rng.permutation(np.flatnonzero(~np.isnan(x).all(axis=1)))
    out = x.astype(np.float32)
    out[order[: min(max(1, round(share * len(order))), len(order) - 1)]] = np.nan
    return out


def time_shift(x: np.ndarray, seconds: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """seconds: earlier or later; what leaves at one end comes back at the other."""
    return np.roll(x, round(rng.choice((-1, 1)) * seconds * schema.rate), axis=1)


def time_scale(x: np.ndarray, factor: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """factor: faster or slower, by linear interpolation; a record that is too short then begins anew."""
    at = np.arange(x.shape[1]) * factor ** rng.choice((-1, 1))
    return _mv(np.stack([np.interp(at, np.arange(x.shape[1]), lead, period=x.shape[1]) for lead in x]))


def amplitude(x: np.ndarray, factor: float, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """factor: larger or smaller."""
    return _mv(x * factor ** rng.choice((-1, 1)))


def lead_swap(x: np.ndarray, pairs: int, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    """pairs: of leads that take each other's place."""
    order, out = rng.permutation(len(x)), x.copy()
    chosen = order[: 2 * min(pairs, len(x) // 2)]
    out[chosen[0::2]], out[chosen[1::2]] = x[chosen[1::2]], x[chosen[0::2]]
    return out


def _mv(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


ECG = (
    Corruption("noise", noise, (20, 15, 10, 5, 0)),
    Corruption("baseline_wander", baseline_wander, (0.1, 0.2, 0.4, 0.7, 1.0)),
    Corruption("powerline", powerline, (0.05, 0.1, 0.2, 0.4, 0.8)),
    Corruption("muscle", muscle, (0.05, 0.1, 0.2, 0.4, 0.8)),
    Corruption("lead_dropout", lead_dropout, (0.08, 0.17, 0.33, 0.5, 0.75)),
    Corruption("time_shift", time_shift, (0.1, 0.3, 0.7, 1.3, 2.1), monotone=False),
    Corruption("time_scale", time_scale, (1.05, 1.1, 1.2, 1.35, 1.5), monotone=False),
    Corruption("amplitude", amplitude, (1.25, 1.5, 2.0, 3.0, 4.0)),
    Corruption("lead_swap", lead_swap, (1, 2, 3, 4, 6)),
)
