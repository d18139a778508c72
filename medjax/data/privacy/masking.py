"""Blanking what may show somebody: bright writing near the borders of a picture, and faces in volumes of a head.

Both are crude rules for items that their reader has flagged. They take away too much rather than too little of what
they look for, they know nothing of what they see, and they are no guarantee: look at a sample before passing data on.
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from medjax.data.readers.image import decode
from medjax.data.volumes import Volume

BURNED_IN, FACE = "burned-in text", "face"
_BORDER = 0.25  # of the side of a picture: where devices write
_BRIGHT = 0.85  # of the range of its values
_STROKE = 0.01  # of the longer side: what is blanked around a bright pixel
_AIR = 0.15  # of the range between the 1st and the 99th percentile: below it is no tissue
_FRONT, _LOW = 0.3, 0.7  # of the extent of the head: from the front, and from below


def mask_item(item: Any, kind: str, flags: Sequence[str]) -> Any:
    """The item without what `flags` warn of: a picture as PNG bytes uint8[n], or a Volume; others as they are."""
    if kind == "image" and BURNED_IN in flags:
        return mask_writing(item)
    if kind == "volume" and FACE in flags and isinstance(item, Volume):
        return mask_face(item)
    return item


def mask_writing(raw: np.ndarray) -> np.ndarray:
    """uint8[n], PNG of the same size and depth: pixels in the outer quarter of each side that are brighter than 85 %
    of the picture's range become its darkest value, with 1 % of the side around them."""
    picture = decode(raw)
    values = np.asarray(picture)
    grey = values if values.ndim == 2 else values[..., :3].max(axis=-1)
    low, high = float(grey.min()), float(grey.max())
    h, w = grey.shape
    inside = np.zeros((h, w), bool)
    inside[round(h * _BORDER) : h - round(h * _BORDER), round(w * _BORDER) : w - round(w * _BORDER)] = True
    bright = (grey > low + _BRIGHT * (high - low)) & ~inside
    width = 2 * max(1, round(max(h, w) * _STROKE)) + 1
    out = values.copy()
    out[_dilated(_dilated(bright, width, 0), width, 1)] = grey.min()
    stream = io.BytesIO()
    Image.fromarray(out).save(stream, "PNG")
    return np.frombuffer(stream.getvalue(), np.uint8)


def _dilated(mask: np.ndarray, width: int, axis: int) -> np.ndarray:
    """Where any of `width` neighbours along the axis is true."""
    half = width // 2
    padded = np.pad(mask.astype(np.int32), [(half + 1, half) if i == axis else (0, 0) for i in range(2)])
    total = padded.cumsum(axis)
    n = mask.shape[axis]
    return total.take(range(width, width + n), axis) - total.take(range(n), axis) > 0


def mask_face(volume: Volume) -> Volume:
    """The volume with its lowest value in the front 30 % of the head, in the lower 70 % of its height, where eyes,
    nose and mouth are; the head is the box of all tissue, on canonical axes."""
    values = volume.values
    solid = values if values.ndim == 3 else values.max(axis=-1)
    low, high = np.percentile(solid, (1, 99))
    tissue = solid > low + _AIR * (high - low)
    d, h = (_extent(tissue.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    out = values.copy()
    out[: d[0] + round(_LOW * (d[1] - d[0])), : h[0] + round(_FRONT * (h[1] - h[0]))] = values.min()
    return dataclasses.replace(volume, values=out)


def _extent(there: np.ndarray) -> tuple[int, int]:
    """First and one past the last true entry; everything where there is none."""
    found = np.flatnonzero(there)
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, len(there))
