"""ECGs: a window of fixed length in units of `scale` mV; small changes of gain, noise and lost leads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.readers.wfdb import read_ecg
from medjax.errors import UserError


@dataclass(frozen=True)
class EcgConfig:
    """samples: length of the window. scale: mV that become 1; values beyond +-clip such units are clipped.
    Augmentation: the window starts at random; gain (+- share), noise (spread, in mV), lead_drop (probability of each
    lead to be zeroed).
    """

    kind: Literal["ecg"] = "ecg"
    samples: int = 1000
    scale: float = 0.5
    clip: float = 20.0
    gain: float = 0.0
    noise: float = 0.0
    lead_drop: float = 0.0


@dataclass(frozen=True)
class EcgTransform:
    """float32[C, T] in mV -> float32[C, samples]: the middle of a longer record, a shorter one padded with zeros."""

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
        if not np.isfinite(raw).all():
            raise UserError("the ECG holds samples that are not numbers")
        return raw.astype(np.float32)

    def finish(self, prepared: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """float32[C, samples]."""
        c = self.config
        spare = prepared.shape[1] - c.samples
        if spare > 0:
            start = spare // 2 if rng is None else int(rng.integers(spare + 1))
            prepared = prepared[:, start : start + c.samples]
        elif spare < 0:
            prepared = np.pad(prepared, ((0, 0), (0, -spare)))
        if rng is not None:
            prepared = self._augment(prepared, rng)
        return np.clip(prepared / np.float32(c.scale), np.float32(-c.clip), np.float32(c.clip))

    def _augment(self, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        c = self.config
        if c.gain:
            signal = signal * np.float32(1 + rng.uniform(-c.gain, c.gain))
        if c.noise:
            signal = signal + rng.normal(0, c.noise, signal.shape).astype(np.float32)
        if c.lead_drop:
            signal = signal * (rng.random((signal.shape[0], 1)) >= c.lead_drop).astype(np.float32)
        return signal

    def empty(self) -> np.ndarray:
        """float32[C, samples] of zeros."""
        return np.zeros((len(self.leads), self.config.samples), np.float32)

    def raw(self, value: Any) -> np.ndarray:
        """From the path of a WFDB record (without ending), or an array [C, T] in mV with these leads at this rate."""
        if isinstance(value, str | Path):
            return read_ecg(value, self.rate, self.leads)
        return np.asarray(value, np.float32)

    def spec(self) -> dict[str, Any]:
        """Leads, rate, unit, window and scale."""
        c = self.config
        window = {"samples": c.samples, "scale": c.scale, "clip": c.clip}
        return {"kind": "ecg", "leads": list(self.leads), "rate": self.rate, "unit": "mV", **window}
