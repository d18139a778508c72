"""Back from what an encoder saw to the input as it came: the inverse of the preprocessing without augmentation.

Along one axis an input of n pixels (voxels, samples) is resized to m, and the encoder sees `size` of them from `start`
on, padding where `start` is below 0 or the end beyond m. A token stands for a place of what the encoder sees, so a grid
of tokens can be read off at every pixel of the input; what the encoder did not see is NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.data.readers.image import decode
from medjax.data.transforms import Transform
from medjax.data.transforms.volume import grid

_HALF = 0.5  # pixel i lies from i to i + 1


@dataclass(frozen=True)
class Placement:
    """One axis of an input. n: its pixels. m: after resizing. start, size: what of these the encoder sees."""

    n: int
    m: int
    start: int
    size: int

    def seen_at(self) -> np.ndarray:
        """float64[n]: where the middle of each pixel of the input lies in what the encoder sees, NaN outside."""
        at = (np.arange(self.n) + _HALF) * self.m / self.n - self.start
        return np.where((at >= 0) & (at < self.size), at, np.nan)


@dataclass(frozen=True)
class Axis:
    """One axis of a grid of tokens: how many, from one to the next how many pixels of what the encoder sees, and where
    the middle of the first lies."""

    count: int
    pitch: float
    middle: float


def placements(transform: Transform, raw: Any) -> tuple[Placement, ...]:
    """Of a picture rows and columns, of a volume slices, rows and columns, of an ECG leads and time, of lab values
    their list, of a text its tokens.

    raw: the item as the transform takes it.
    """
    c = getattr(transform, "config", None)
    if transform.kind == "image":
        width, height = decode(raw, c.channels).size if raw.ndim == 1 else raw.shape[1::-1]
        return tuple(_fitted(n, (height, width), c.size, c.fit) for n in (height, width))
    if transform.kind == "volume":
        new = grid(raw.shape[:3], raw.spacing, c.size, c.fit, c.spacing)
        return tuple(_middle(n, m, k) for n, m, k in zip(raw.shape[:3], new, c.size, strict=True))
    if transform.kind == "ecg":
        leads, samples = raw.shape
        start = max(0, samples - c.samples) // 2  # a shorter record is padded after its end
        return Placement(leads, leads, 0, leads), Placement(samples, samples, start, c.samples)
    n = c.length if transform.kind == "text" else len(raw)
    return (Placement(n, n, 0, n),)


def _fitted(n: int, sides: tuple[int, int], size: int, how: str) -> Placement:
    """As `medjax.data.transforms.image.fit` does."""
    if how == "stretch":
        return Placement(n, size, 0, size)
    scale = size / (max(sides) if how == "pad" else min(sides))
    m = max(1, round(n * scale))
    return Placement(n, m, (m - size) // 2, size)


def _middle(n: int, m: int, size: int) -> Placement:
    """As `VolumeTransform.finish` does."""
    spare = m - size
    return Placement(n, m, spare // 2 if spare > 0 else -(-spare // 2), size)


def token_axes(tower: Any, value: np.ndarray | Mapping[str, np.ndarray]) -> tuple[Axis, ...]:
    """The grid of a tower's tokens. tower: its module. value: one input of it, as `Transform.finish` gives it.

    Patches stand for their middle. A place of a residual network's last map is the middle of what it can see: padded
    evenly, place i of a map that is 32 times smaller looks at pixel 32 i and as far around it on either side.
    """
    c = tower.config
    array = value["value"] if isinstance(value, Mapping) and "value" in value else value
    if c.name == "vit":
        frames, *sides = tower.grid(array[None])
        axes = tuple(Axis(k, c.patch, c.patch / 2) for k in sides)
        return axes if array.ndim == 3 else (Axis(frames, c.frames, c.frames / 2), *axes)
    if c.name.startswith("resnet"):
        leads, sides = (array.shape[0], array.shape[1:2]) if array.ndim == 2 else (0, array.shape[:2])
        axes = tuple(Axis(-(-n // 32), 32, _HALF) for n in sides)
        if c.name == "resnet_ecg_image":
            return Axis(-(-leads // 32), 32, _HALF), *axes
        return (_every(leads), *axes) if leads else axes
    if c.name == "ecg_vit":
        if c.tokens == "conv":  # two kernels of 5, with strides 5 and 1
            return _every(array.shape[0]), Axis((array.shape[1] - 5) // 5 + 1 - 4, 5, 12.5)
        leads = Axis(array.shape[0], 1, _HALF) if c.tokens == "lead_time" else _every(array.shape[0])
        return leads, Axis(array.shape[1] // c.patch, c.patch, c.patch / 2)
    return (Axis(len(value["tokens"] if isinstance(value, Mapping) and "tokens" in value else array), 1, _HALF),)


def pixel_axes(shape: Sequence[int]) -> tuple[Axis, ...]:
    """The grid of explanations that have a value at every pixel of what the encoder sees."""
    return tuple(Axis(n, 1, _HALF) for n in shape)


def _every(leads: int) -> Axis:
    """One row of tokens that stands for all leads together."""
    return Axis(1, leads, leads / 2)


def to_input(tokens: np.ndarray, axes: Sequence[Axis], places: Sequence[Placement]) -> np.ndarray:
    """float32 of the input's shape from one number a token [L], its places row by row; linear between their middles,
    constant beyond the outer ones.

    Pixels that the encoder did not see are NaN, and so are those nearest to a token that is NaN.
    """
    out = np.asarray(tokens, np.float32).reshape([a.count for a in axes])
    known = np.isfinite(out)
    out = np.where(known, out, np.float32(0))
    weight, nearest = known.astype(np.float32), known
    for dim, (axis, place) in enumerate(zip(axes, places, strict=True)):
        at = place.seen_at()
        seen = np.isfinite(at)
        where = ((np.where(seen, at, 0) - axis.middle) / axis.pitch).clip(0, axis.count - 1)
        out, weight = (_linear(x, dim, where) for x in (out, weight))
        nearest = nearest.take(np.rint(where).astype(np.intp), dim)
        nearest = nearest & seen.reshape([-1 if d == dim else 1 for d in range(nearest.ndim)])
    return np.where(nearest, out / np.maximum(weight, np.float32(1e-6)), np.float32(np.nan))


def _linear(x: np.ndarray, dim: int, where: np.ndarray) -> np.ndarray:
    low = np.floor(where).astype(np.intp)
    high = np.minimum(low + 1, x.shape[dim] - 1)
    share = (where - low).astype(np.float32).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    below, above = x.take(low, dim), x.take(high, dim)
    return below + share * (above - below)
