"""Volumes: a grid of fixed size, intensities by window, percentiles or spread; crops, shifts and changes of contrast.

The voxel policy: intensities between `low` and `high` become [0, 1] and then `(x - mean) / std`, those beyond are
clipped; "zscore" clips nothing. Around a volume that does not fill the grid there is its lowest value. No axis is ever
flipped: a flipped body has its liver on the wrong side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from medjax.data.chunks import StoredVolume
from medjax.data.manifest import Modality
from medjax.data.readers import reader
from medjax.data.readers.sniff import reader_for
from medjax.data.readers.voxels import storable
from medjax.data.volumes import PERCENTILES, Statistics, Volume, resize
from medjax.errors import UserError

_DEFAULT_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class VolumeConfig:
    """size: voxels along D, H, W of what the encoder sees. fit: "pad" scales the whole volume to fit, its proportions
    kept; "crop" brings it to `spacing` and takes a box of `size` (the middle; in training anywhere along the axes that
    are longer); "stretch" scales each axis to its size. spacing: mm along D, H, W, () for the volume's own with "crop";
    with "pad" only its proportions count, () being the same along all axes.

    scaling: "window" clips to `window` = (low, high) in the unit of the volume, such as (-1350, 150) HU for lungs and
    (-160, 240) HU for soft tissue; "percentile" takes `window` as percentiles of the volume (multiples of 0.5, by
    default 0.5 and 99.5), for MR; "zscore" subtracts the mean and divides by the spread of the voxels that are not 0.
    mean, std: of intensities in [0, 1]. channels: of the volume.

    Augmentation: shift (share of the size, of axes that are not cropped at random), contrast (share of the spread) and
    gamma (of the exponent's logarithm; not with "zscore"), each uniform within +- the value.
    """

    kind: Literal["volume"] = "volume"
    size: tuple[int, int, int] = (64, 128, 128)
    fit: Literal["pad", "crop", "stretch"] = "pad"
    spacing: tuple[float, ...] = ()
    scaling: Literal["percentile", "window", "zscore"] = "percentile"
    window: tuple[float, ...] = ()
    mean: float = 0.5
    std: float = 0.25
    channels: int = 1
    shift: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0

    def __post_init__(self):
        if len(self.size) != 3 or min(self.size) < 1:
            raise UserError(f"volume size must be three numbers of voxels (D, H, W), got {self.size}")
        if self.spacing and (len(self.spacing) != 3 or min(self.spacing) <= 0 or self.fit == "stretch"):
            raise UserError(
                f"volume spacing must be three positive numbers of mm (D, H, W), and none with fit='stretch', got "
                f"{self.spacing}"
            )
        if self.scaling == "percentile" and not self.window:
            object.__setattr__(self, "window", _DEFAULT_PERCENTILES)
        if self.scaling != "zscore" and (len(self.window) != 2 or self.window[0] >= self.window[1]):
            raise UserError(f"volume scaling={self.scaling!r} needs window=(low, high), got {self.window}")
        if self.scaling == "percentile" and not set(self.window) <= set(PERCENTILES):
            raise UserError(f"volume window must be percentiles in steps of 0.5 from 0 to 100, got {self.window}")
        if self.scaling == "zscore" and (self.window or self.gamma):
            raise UserError("volume scaling='zscore' has no window and no gamma; drop them, or use 'percentile'")


@dataclass(frozen=True)
class _Prepared:
    """volume: on its own grid, or on that of the encoder where it fits. grid: voxels of the whole volume on the
    encoder's grid. statistics: of its own voxels.
    """

    volume: Volume | StoredVolume
    grid: tuple[int, int, int]
    statistics: Statistics


@dataclass(frozen=True)
class VolumeTransform:
    """A Volume or StoredVolume on the canonical axes -> float32[D, H, W, channels]."""

    config: VolumeConfig
    kind: ClassVar[str] = "volume"

    @classmethod
    def create(cls, config: VolumeConfig, schema: Modality, directory: Path) -> "VolumeTransform":
        """Needs nothing of the data set."""
        return cls(config)

    def prepare(self, raw: Volume | StoredVolume) -> _Prepared:
        """What fits the encoder's grid is put on it; a larger volume stays as it is, in chunks that `finish` reads."""
        c = self.config
        if (raw.shape[3:] or (1,)) != (c.channels,):
            found = (raw.shape[3:] or (1,))[0]
            raise UserError(f"the volume has {found} channels and the config {c.channels}; set channels={found}")
        new = grid(raw.shape[:3], raw.spacing, c.size, c.fit, c.spacing)
        statistics = raw.statistics
        if all(n <= k for n, k in zip(new, c.size, strict=True)):
            raw = Volume(resize(raw, new), raw.spacing)
        return _Prepared(raw, new, statistics)

    def finish(self, prepared: _Prepared, rng: np.random.Generator | None) -> np.ndarray:
        """float32[D, H, W, channels]; of a larger volume in chunks it reads only those of the crop.

        Raises:
          UserError: a chunk is damaged.
        """
        c = self.config
        start = [self._start(n, k, rng) for n, k in zip(prepared.grid, c.size, strict=True)]
        low = [max(0, a) for a in start]
        high = [min(n, a + k) for n, a, k in zip(prepared.grid, start, c.size, strict=True)]
        box = resize(prepared.volume, prepared.grid, low, [b - a for a, b in zip(low, high, strict=True)])
        box = self._scaled(box.reshape(*box.shape[:3], c.channels).astype(np.float32), prepared.statistics, rng)
        if box.shape[:3] == c.size:
            return box
        lowest = self._scaled(prepared.statistics.percentiles[:, 0], prepared.statistics, None)
        out = np.broadcast_to(lowest, (*c.size, c.channels)).copy()
        out[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))] = box
        return out

    def _start(self, grid: int, size: int, rng: np.random.Generator | None) -> int:
        """Where the box begins along one axis of the grid; below 0 there is padding before it."""
        spare = grid - size
        if spare > 0:
            return spare // 2 if rng is None else int(rng.integers(spare + 1))
        middle = -(-spare // 2)
        if rng is None or not self.config.shift:
            return middle
        moved = middle + round(rng.uniform(-self.config.shift, self.config.shift) * size)
        return min(max(moved, 1 - size), grid - 1)  # one slice stays

    def _scaled(self, x: np.ndarray, statistics: Statistics, rng: np.random.Generator | None) -> np.ndarray:
        """float32[..., channels], augmented if `rng` is given."""
        c = self.config
        if c.scaling == "zscore":
            x = (x - statistics.mean) / np.where(statistics.std > 0, statistics.std, 1)
        else:
            low, high = limits(statistics.percentiles, c.scaling, c.window)
            x = ((x - low) / np.where(high > low, high - low, 1)).clip(0, 1)
            if rng is not None and c.gamma:
                x = x ** np.float32(np.exp(rng.uniform(-c.gamma, c.gamma)))
            x = (x - np.float32(c.mean)) / np.float32(c.std)
        if rng is not None and c.contrast:
            factor, offset = 1 + rng.uniform(-c.contrast, c.contrast), rng.uniform(-c.contrast, c.contrast)
            x = x * np.float32(factor) + np.float32(offset)
        return x

    def empty(self) -> np.ndarray:
        """float32[D, H, W, channels] of zeros."""
        return np.zeros((*self.config.size, self.config.channels), np.float32)

    def raw(self, value: Any) -> Volume | StoredVolume:
        """From the path of a NIfTI or NRRD file or of the folder of a DICOM series, a Volume, a mapping of its `values`
        and `spacing`, or values alone, [D, H, W] or [D, H, W, C] on the canonical axes, then of 1 mm."""
        if isinstance(value, str | Path):
            return reader(reader_for(value, "volume"))(Path(value), {})
        if isinstance(value, Volume | StoredVolume):
            return value
        given = value if isinstance(value, Mapping) else {"values": value}
        return Volume(storable(np.asarray(given["values"])), tuple(given.get("spacing", (1.0, 1.0, 1.0))))

    def spec(self) -> dict[str, Any]:
        """Grid and scaling."""
        c = self.config
        names = ("size", "fit", "spacing", "scaling", "window", "mean", "std", "channels")
        given = {k: list(v) if isinstance(v := getattr(c, k), tuple) else v for k in names}
        return {"kind": "volume", **given, "resample": "trilinear"}


def grid(shape, spacing, size, fit: Literal["pad", "crop", "stretch"], wanted) -> tuple[int, int, int]:
    """How many voxels the whole volume has on the encoder's grid; see `VolumeConfig`."""
    if fit == "stretch":
        return tuple(size)
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    if fit == "crop":
        return tuple(max(1, round(x / s)) for x, s in zip(extent, wanted or spacing, strict=True))
    proportions = wanted or (1.0, 1.0, 1.0)
    pitch = max(x / (n * p) for x, n, p in zip(extent, size, proportions, strict=True))
    return tuple(min(n, max(1, round(x / (p * pitch)))) for x, n, p in zip(extent, size, proportions, strict=True))


def limits(percentiles: np.ndarray, scaling: Literal["window", "percentile"], window) -> tuple[Any, Any]:
    """The intensities that become 0 and 1: the same for all, or float32[C]."""
    if scaling == "window":
        return np.float32(window[0]), np.float32(window[1])
    return tuple(percentiles[:, PERCENTILES.index(p)] for p in window)
