"""Tables of numbers with gaps: standardised by the training split, with an indicator of what was observed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from medjax.data.manifest import Modality
from medjax.errors import UserError, suggest


@dataclass(frozen=True)
class LabsConfig:
    """drop: probability with which an observed value is hidden in training, so that gaps are learnt."""

    kind: Literal["labs"] = "labs"
    drop: float = 0.0


@dataclass(frozen=True)
class LabsTransform:
    """float32[F] with NaN for missing -> `value` float32[F] (0 where missing) and `observed` float32[F] (1 or 0).

    Values, also those beyond a detection limit (+-inf), are clipped to the 1st and 99th percentile of the training
    split before they are standardised.
    """

    config: LabsConfig
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    kind: ClassVar[str] = "labs"

    @classmethod
    def create(cls, config: LabsConfig, schema: Modality, directory: Path) -> "LabsTransform":
        """Takes names and statistics from the data set."""
        mean, std, low, high, _ = zip(*(schema.statistics[n] for n in schema.names), strict=True)
        return cls(config, schema.names, mean, std, low, high)

    def prepare(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """Standardised values and what was observed."""
        if raw.shape != (len(self.names),):
            raise UserError(f"lab values must be [{len(self.names)}], got {list(raw.shape)}")
        observed = ~np.isnan(raw)
        low, high, mean, std = (np.asarray(x, np.float32) for x in (self.low, self.high, self.mean, self.std))
        value = (np.clip(np.where(observed, raw, mean), low, high) - mean) / std
        return {"value": np.where(observed, value, 0.0).astype(np.float32), "observed": observed.astype(np.float32)}

    def finish(self, prepared: dict[str, np.ndarray], rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """With some values hidden in training."""
        if rng is None or not self.config.drop:
            return prepared
        keep = (rng.random(len(self.names)) >= self.config.drop).astype(np.float32)
        return {k: v * keep for k, v in prepared.items()}

    def empty(self) -> dict[str, np.ndarray]:
        """Zeros: nothing observed."""
        zero = np.zeros(len(self.names), np.float32)
        return {"value": zero, "observed": zero.copy()}

    def raw(self, value: Any) -> np.ndarray:
        """From `{name: number}`, where what is left out is missing, or an array in the order of `names`."""
        if not isinstance(value, Mapping):
            return np.asarray(value, np.float32)
        for name in value:
            if name not in self.names:
                raise UserError(f"unknown lab value {name!r}; {suggest(name, self.names)}")
        return np.array([value.get(name, np.nan) for name in self.names], np.float32)

    def spec(self) -> dict[str, Any]:
        """Names and scaling."""
        return {"kind": "labs", **{k: list(getattr(self, k)) for k in ("names", "mean", "std", "low", "high")}}
