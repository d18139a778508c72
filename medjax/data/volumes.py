"""Volumes: voxels on canonical axes, how an affine leads there, and resampling to a spacing.

Canonical axes are those of DICOM's patient coordinates (LPS) read from slow to fast: `values[D, H, W]` with D from
inferior to superior, H from anterior to posterior, W from the patient's right to the left. So `values[d]` shown with
row 0 above and column 0 at the left is what a radiologist expects: the patient's right at the left, the front above.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from medjax.errors import UserError

DTYPES = ("int16", "uint8", "uint16", "float32")
MAX_VOXELS = 1 << 30
PERCENTILES = tuple(i / 2 for i in range(201))
_SAMPLED = 1 << 22
_LPS_OF_AXIS = (2, 1, 0)  # D runs along S, H along P, W along L


class Statistics(NamedTuple):
    """Of the voxels of each channel: percentiles float32[C, 201] at 0, 0.5, ... 100; mean and std float32[C] of those
    that are not 0, or of all where all are.
    """

    percentiles: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Volume:
    """values: int16, uint8, uint16 or float32 [D, H, W] or [D, H, W, C] on the canonical axes. spacing: mm between
    voxels along D, H, W. unit: "HU" where values are Hounsfield units, else "" (MR, label maps).

    Raises:
      UserError: values are of another type or shape, or a spacing is not a positive number.
    """

    values: np.ndarray
    spacing: tuple[float, float, float]
    unit: Literal["HU", ""] = ""

    def __post_init__(self):
        if self.values.dtype.name not in DTYPES or self.values.ndim not in (3, 4) or not self.values.size:
            raise UserError(
                f"a volume must be {', '.join(DTYPES)} [D, H, W] or [D, H, W, C] with at least one voxel, got "
                f"{self.values.dtype}{list(self.values.shape)}"
            )
        if len(self.spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in self.spacing):
            raise UserError(f"the spacing of a volume must be three positive numbers in mm, got {self.spacing}")
        object.__setattr__(self, "spacing", tuple(float(s) for s in self.spacing))

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, H, W) or (D, H, W, C)."""
        return self.values.shape

    @property
    def statistics(self) -> Statistics:
        """Of all voxels, or of every k-th of more than 2^22 voxels."""
        voxels = self.values.reshape(-1, math.prod(self.shape[3:]))
        voxels = voxels[
            :: math.ceil(len(voxels) / _SAMPLED) | 1
        ]  # an even step would take the same columns of each row
        percentiles = np.percentile(voxels, PERCENTILES, axis=0, method="nearest").T
        counted = [x[x != 0] if x.any() else x for x in voxels.T]
        moments = [(x.mean(dtype=np.float64), x.std(dtype=np.float64)) for x in counted]
        return Statistics(percentiles.astype(np.float32), *np.array(moments, np.float32).T)

    def crop(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
        """The voxels of a box that lies inside, [*size] or [*size, C]."""
        return self.values[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]


def canonical(values: np.ndarray, directions: np.ndarray, unit: Literal["HU", ""] = "") -> Volume:
    """A Volume from voxels in any order of axes.

    values: [I, J, K] or [I, J, K, C]. directions: [3, 3], in column k the step in mm that one index along axis k makes
    in patient coordinates LPS (x to the left, y to posterior, z to superior); NIfTI's RAS affines change the sign of
    x and y first. Axes that are not parallel to the patient's go to the nearest ones and are not resampled: the order
    of axes and their signs change, no voxel does. The spacing is the length of each step.

    Raises:
      UserError: the directions are not finite, or do not span space.
    """
    directions = np.asarray(directions, np.float64)
    lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite(directions).all() or not (lengths > 0).all():
        raise UserError(f"the voxel axes must be finite and not zero, got steps of {lengths.tolist()} mm")
    cosines = directions / lengths
    if abs(np.linalg.det(cosines)) < 1e-3:
        raise UserError("the voxel axes lie in one plane; the header's orientation is damaged")
    order = max(itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[_LPS_OF_AXIS, p])))
    flips = tuple(
        slice(None, None, -1) if cosines[x, k] < 0 else slice(None) for x, k in zip(_LPS_OF_AXIS, order, strict=True)
    )
    values = values.transpose(*order, *range(3, values.ndim))[flips]
    return Volume(values, tuple(lengths[k] for k in order), unit)


def resample(volume: Volume, spacing: tuple[float, float, float], labels: bool = False) -> Volume:
    """The volume on a grid of another spacing, over the same extent in mm.

    The number of voxels is rounded, and the spacing with it. See `resize` for what the values become.

    Raises:
      UserError: the new grid would hold more than 2^30 voxels.
    """
    old = volume.shape[:3]
    new = tuple(max(1, round(n * a / b)) for n, a, b in zip(old, volume.spacing, spacing, strict=True))
    values = resize(volume, new, labels=labels)
    return replace(
        volume, values=values, spacing=tuple(n * a / m for n, a, m in zip(old, volume.spacing, new, strict=True))
    )


def resize(volume, new: tuple[int, int, int], start=(0, 0, 0), size=None, labels: bool = False) -> np.ndarray:
    """A box of the grid that has `new` voxels over the whole of a volume: [*size] or [*size, C].

    volume: a Volume or a StoredVolume, of which only the box is read. start, size: of the box on the new grid, by
    default all of it. Voxel i of `new` along an axis of n lies at `(i + 0.5) * n / new - 0.5`, so that the borders of
    the grids meet. Values between voxels are linear, float32; a label map takes the nearest and keeps its type, as do
    values where voxels meet voxels. Where
    the grid becomes coarser, nothing is smoothed beforehand.

    Raises:
      UserError: the box would hold more than 2^30 voxels.
    """
    size = new if size is None else size
    old = volume.shape[:3]
    if math.prod(size) * math.prod(volume.shape[3:]) > MAX_VOXELS:
        raise UserError(f"resampling would make {'x'.join(map(str, size))} voxels, more than {MAX_VOXELS}")
    at = [
        ((np.arange(a, a + k) + 0.5) * (n / m) - 0.5).clip(0, n - 1)
        for a, k, n, m in zip(start, size, old, new, strict=True)
    ]
    low = tuple(int(x[0]) for x in at)
    box = volume.crop(low, tuple(math.ceil(x[-1]) + 1 - a for x, a in zip(at, low, strict=True)))
    for axis, (x, a) in enumerate(zip(at, low, strict=True)):
        box = _along(box, axis, x - a, labels)
    return box


def _along(values: np.ndarray, axis: int, at: np.ndarray, labels: bool) -> np.ndarray:
    """Linear interpolation is separable: one axis at a time needs no grid of coordinates."""
    low = np.floor(at).astype(np.intp)
    if np.array_equal(low, at):
        return values if len(at) == values.shape[axis] else values.take(low, axis)
    if labels:
        return values.take(np.floor(at + 0.5).astype(np.intp), axis)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    below, above = values.take(low, axis).astype(np.float32), values.take(high, axis).astype(np.float32)
    return below + weight * (above - below)
