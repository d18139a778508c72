"""ECGs: a window of fixed length in units of `scale` mV; changes of gain and pace, noise, wander and lost leads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.readers.ecg import read_ecg
from medjax.errors import UserError

_WANDER_HZ = (0.05, 0.5)  # breathing and drifting electrodes


@dataclass(frozen=True)
class EcgConfig:
    """samples: length of the window. scale: mV that become 1; values beyond +-clip such units are clipped. lead_mask:
    tell the encoder which leads were recorded; without it those that are absent are zeros like any others.
    Augmentation: the window starts at random; warp (pace, +- share), gain (+- share), wander (of the baseline, up to so
    many mV in each lead), noise (spread, in mV), lead_drop (probability of each lead to be zeroed, with lead_mask as if
    it had not been recorded, and then one stays at least).
    """

    kind: Literal["ecg"] = "ecg"
    samples: int = 1000
    scale: float = 0.5
    clip: float = 20.0
    lead_mask: bool = False
    warp: float = 0.0
    gain: float = 0.0
    wander: float = 0.0
    noise: float = 0.0
    lead_drop: float = 0.0

    def __post_init__(self):
        if not 0 <= self.warp < 1:
            raise UserError(f"ECG warp must be a share of the pace in [0, 1), got {self.warp}")


@dataclass(frozen=True)
class EcgTransform:
    """float32[C, T] in mV, rows of NaN for absent leads -> `value` float32[C, samples], and with `lead_mask` also
    `leads` bool[C]: the middle of a longer record, a shorter one padded with zeros; absent leads are zeros.
    """

    config: EcgConfig
    leads: tuple[str, ...]
    rate: float
    kind: ClassVar[str] = "ecg"

    @classmethod
    def create(cls, config: EcgConfig, schema: Modality, directory: Path) -> "EcgTransform":
        """Takes leads and rate from the data set."""
        return cls(config, schema.names, float(schema.rate or 0))

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """float32[C, T] in mV, checked."""
        if raw.ndim != 2 or raw.shape[0] != len(self.leads):
            raise UserError(f"an ECG must be [{len(self.leads)}, T] ({', '.join(self.leads)}), got {list(raw.shape)}")
        absent = np.isnan(raw).all(axis=1)
        if not np.isfinite(raw[~absent]).all():
            raise UserError("the ECG holds samples that are not numbers")
        if absent.all():
            raise UserError("the ECG has no leads")
        return raw.astype(np.float32)

    def finish(self, prepared: np.ndarray, rng: np.random.Generator | None) -> np.ndarray | dict[str, np.ndarray]:
        """float32[C, samples], with `lead_mask` a dict with `leads`."""
        c = self.config
        leads = ~np.isnan(prepared).any(axis=1)
        signal = prepared if leads.all() else np.where(leads[:, None], prepared, np.float32(0))
        signal = _warped(signal, c, rng) if rng is not None and c.warp else _window(signal, c.samples, rng)
        if rng is not None:
            signal, leads = self._augment(signal, leads, rng)
        value = np.clip(signal / np.float32(c.scale), np.float32(-c.clip), np.float32(c.clip))
        return {"value": value, "leads": leads} if c.lead_mask else value

    def _augment(self, signal: np.ndarray, leads: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
        c = self.config
        if c.gain:
            signal = signal * np.float32(1 + rng.uniform(-c.gain, c.gain))
        if c.wander:
            signal = signal + self._drift(rng)
        if c.noise:
            signal = signal + rng.normal(0, c.noise, signal.shape).astype(np.float32)
        keep = leads
        if c.lead_drop:
            keep = leads & (rng.random((signal.shape[0], 1)) >= c.lead_drop)[:, 0]
            if c.lead_mask and not keep.any():
                keep[rng.choice(np.flatnonzero(leads))] = True
        return (signal if keep.all() else signal * keep[:, None].astype(np.float32)), keep

    def _drift(self, rng: np.random.Generator) -> np.ndarray:
        """float32[C, samples]: a slow sine of one frequency, in each lead of an amplitude and phase of its own."""
        t, n = np.arange(self.config.samples) / self.rate, len(self.leads)
        angle = 2 * np.pi * (rng.uniform(*_WANDER_HZ) * t + rng.random((n, 1)))
        return (rng.uniform(0, self.config.wander, (n, 1)) * np.sin(angle)).astype(np.float32)

    def empty(self) -> np.ndarray | dict[str, np.ndarray]:
        """Zeros, of leads that count as recorded, so that attention has something to look at."""
        value = np.zeros((len(self.leads), self.config.samples), np.float32)
        return {"value": value, "leads": np.ones(len(self.leads), bool)} if self.config.lead_mask else value

    def raw(self, value: Any) -> np.ndarray:
        """From a path (an EDF file, or a WFDB record with or without ".hea"), or an array [C, T] in mV with these leads
        at this rate, rows of NaN for absent ones."""
        if isinstance(value, str | Path):
            return read_ecg(value, self.rate, self.leads)
        return np.asarray(value, np.float32)

    def spec(self) -> dict[str, Any]:
        """Leads, rate, unit, window and scale, and whether the encoder is told the leads."""
        c = self.config
        window = {"samples": c.samples, "scale": c.scale, "clip": c.clip}
        mask = {"lead_mask": True} if c.lead_mask else {}
        return {"kind": "ecg", "leads": list(self.leads), "rate": self.rate, "unit": "mV", **window, **mask}


def _window(signal: np.ndarray, samples: int, rng: np.random.Generator | None) -> np.ndarray:
    """[C, samples]: from the middle, or from anywhere; zeros after the end."""
    spare = signal.shape[1] - samples
    if spare > 0:
        start = spare // 2 if rng is None else int(rng.integers(spare + 1))
        return signal[:, start : start + samples]
    return np.pad(signal, ((0, 0), (0, -spare))) if spare < 0 else signal


def _warped(signal: np.ndarray, c: EcgConfig, rng: np.random.Generator) -> np.ndarray:
    """[C, samples]: a window from anywhere at another pace, by linear interpolation; zeros after the end."""
    pace = 1 + rng.uniform(-c.warp, c.warp)
    spare = signal.shape[1] - 1 - (c.samples - 1) * pace
    at = max(0.0, rng.uniform(0, 1) * spare) + np.arange(c.samples) * pace
    place = np.arange(signal.shape[1])
    return np.stack([np.interp(at, place, lead, right=0) for lead in signal]).astype(np.float32)
