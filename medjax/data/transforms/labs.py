"""Tables of numbers with gaps: scaled by the training split, with an indicator of what was observed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from medjax.data.manifest import Modality
from medjax.errors import UserError, suggest


@dataclass(frozen=True)
class LabsConfig:
    """scaling: "standard" (to mean 0 and spread 1) or "percentile" (by rank among the training values). drop:
    probability with which an observed value is hidden in training, so that gaps are learnt.
    """

    kind: Literal["labs"] = "labs"
    scaling: Literal["standard", "percentile"] = "standard"
    drop: float = 0.0


@dataclass(frozen=True)
class LabsTransform:
    """float32[F] with NaN for missing -> `value` float32[F] (0 where missing) and `observed` float32[F] (1 or 0).

    Values, also those beyond a detection limit (+-inf), are clipped to the 1st and 99th percentile of the training
    split. "standard" then subtracts the mean and divides by the spread. "percentile" takes the share of training values
    up to this one (the empirical distribution function, from `percentiles`, linear between them) less its training mean
    `centre`: as in Symile's encoder of lab tests (arXiv 2411.01053), which gives a missing value the mean percentile,
    but for the constant, so that missing is 0 in either scaling.
    """

    config: LabsConfig
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...] = ()
    kind: ClassVar[str] = "labs"

    @classmethod
    def create(cls, config: LabsConfig, schema: Modality, directory: Path) -> "LabsTransform":
        """Takes names and statistics from the data set.

        Raises:
          UserError: percentiles are asked of a data set that was built without them.
        """
        mean, std, low, high, _ = zip(*(schema.statistics[n] for n in schema.names), strict=True)
        if config.scaling == "standard":
            return cls(config, schema.names, mean, std, low, high)
        if missing := [n for n in schema.names if n not in schema.percentiles]:
            raise UserError(
                f"scaling='percentile' needs percentiles that the data set lacks for {', '.join(missing)}; build it "
                "again with this version, or use scaling='standard'"
            )
        return cls(config, schema.names, mean, std, low, high, tuple(schema.percentiles[n] for n in schema.names))

    def prepare(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """Scaled values and what was observed."""
        if raw.shape != (len(self.names),):
            raise UserError(f"lab values must be [{len(self.names)}], got {list(raw.shape)}")
        observed = ~np.isnan(raw)
        if self.config.scaling == "percentile":
            value = [rank(x, at) for x, at in zip(raw, self.percentiles, strict=True)] - self._centre
        else:
            low, high, mean, std = (np.asarray(x, np.float32) for x in (self.low, self.high, self.mean, self.std))
            value = (np.clip(np.where(observed, raw, mean), low, high) - mean) / std
        return {"value": np.where(observed, value, 0.0).astype(np.float32), "observed": observed.astype(np.float32)}

    @cached_property
    def _centre(self) -> np.ndarray:
        """float64[F]: the mean of `rank` over the training values, as well as their percentiles tell."""
        return np.array([rank(at, at).mean() for at in self.percentiles])

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
        common = {"kind": "labs", "names": list(self.names)}
        if self.config.scaling == "percentile":
            return {**common, "percentiles": [list(x) for x in self.percentiles], "centre": self._centre.tolist()}
        return {**common, **{k: list(getattr(self, k)) for k in ("mean", "std", "low", "high")}}


def rank(value: np.ndarray, percentiles: tuple[float, ...]) -> np.ndarray:
    """The share of training values up to `value`, from 0.01 to 0.99, NaN for NaN.

    percentiles: the 1st to the 99th, not falling; where several are one value, it has the highest of their ranks.
    """
    return np.interp(value, percentiles, np.arange(1, 100) / 100)
