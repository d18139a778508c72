"""A 12-lead ECG of a phantom patient: P-QRS-T as sums of Gaussians at physiologic intervals."""

from dataclasses import dataclass

import numpy as np

RATE, SECONDS = 100, 10

# Amplitudes in mV for I, II, III, aVR, aVL, aVF, V1-V6.
_P = (0.08, 0.13, 0.06, -0.10, 0.03, 0.09, 0.05, 0.06, 0.07, 0.07, 0.07, 0.07)
_Q = (-0.06, -0.05, -0.04, 0.05, -0.04, -0.05, 0.0, 0.0, -0.03, -0.06, -0.08, -0.08)
_R = (0.60, 1.00, 0.45, -0.80, 0.20, 0.70, 0.20, 0.45, 0.80, 1.20, 1.10, 0.85)
_S = (-0.12, -0.15, -0.12, 0.12, -0.10, -0.12, -0.85, -1.05, -0.75, -0.45, -0.20, -0.10)
_T = (0.20, 0.30, 0.12, -0.25, 0.08, 0.20, -0.05, 0.30, 0.35, 0.35, 0.30, 0.25)
_ST = (0.0, -0.08, -0.10, 0.0, 0.05, -0.09, 0.22, 0.32, 0.30, 0.22, 0.08, 0.0)  # anterior elevation
_BLOCK = (0.15, 0.1, 0.0, -0.1, 0.15, 0.05, -0.55, -0.5, -0.3, 0.1, 0.35, 0.45)  # late left-sided activation
_FIBRILLATION = (0.05, 0.12, 0.10, 0.06, 0.05, 0.10, 0.20, 0.14, 0.08, 0.05, 0.05, 0.05)

# Left and right arm exchanged: I is inverted, II and III change places, and so do aVR and aVL.
_REVERSED = [0, 2, 1, 4, 3, 5, 6, 7, 8, 9, 10, 11]
_REVERSED_SIGN = np.array([-1.0] + [1.0] * 11)[:, None]


@dataclass(frozen=True)
class HeartState:
    """What the ECG shows. rate: beats per minute. reversed_arms: lead I points to the right, as in dextrocardia."""

    rate: float
    fibrillation: bool
    block: bool
    st_elevation: bool
    reversed_arms: bool


def render_ecg(state: HeartState, rng: np.random.Generator) -> np.ndarray:
    """float32[12, 1000]: ten seconds at 100 Hz, in mV."""
    t = np.arange(RATE * SECONDS) / RATE
    beats = _beats(state, rng)
    rr = 60.0 / state.rate
    width = 2.0 if state.block else 1.0
    waves = [
        (_Q, -0.03 * width, 0.010 * width),
        (_R, 0.0, 0.012 * width),
        (_S, 0.032 * width, 0.011 * width),
        (_T, 0.26 * np.sqrt(rr) + 0.04 * state.block, 0.045),
    ]
    if not state.fibrillation:
        waves.append((_P, -0.16, 0.022))
    if state.block:
        waves.append((_BLOCK, 0.055, 0.022))
    if state.st_elevation:
        waves.append((_ST, 0.13, 0.045))
    signal = sum(np.outer(amplitude, _train(t, beats + delay, sigma)) for amplitude, delay, sigma in waves)
    signal *= rng.uniform(0.8, 1.2)
    if state.reversed_arms:
        signal = signal[_REVERSED] * _REVERSED_SIGN
    if state.fibrillation:
        phase = 2 * np.pi * np.cumsum(rng.normal(6.0, 1.0, t.size)) / RATE
        signal += np.outer(_FIBRILLATION, np.sin(phase))
    wander = rng.normal(0, 0.05, (12, 1)) * np.sin(2 * np.pi * rng.uniform(0.15, 0.4) * t + rng.uniform(0, 6.3))[None]
    return (signal + wander + rng.normal(0, 0.015, signal.shape)).astype(np.float32)


def _beats(state: HeartState, rng: np.random.Generator) -> np.ndarray:
    """Times of the R peaks in seconds."""
    n = int(SECONDS * state.rate / 60) + 3
    jitter = rng.lognormal(0, 0.22 if state.fibrillation else 0.02, n)
    return np.cumsum(60.0 / state.rate * jitter) - rng.uniform(0, 60.0 / state.rate)


def _train(t: np.ndarray, centres: np.ndarray, sigma: float) -> np.ndarray:
    """One Gaussian bump of height 1 a beat."""
    return np.exp(-0.5 * ((t[:, None] - centres[None]) / sigma) ** 2).sum(1)
