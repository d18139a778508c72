"""Corruptions of pictures, with the severities of MedMNIST-C (arXiv 2406.17536) for each of its data sets.

A picture is changed at its own resolution and in 8 bits. Parameters in pixels hold for a shorter side of 224, at which
MedMNIST-C was made, and scale with the picture. Noise is drawn for each pixel; of a gray picture the three channels
stay equal. Three things differ from the released code: the numbers of bubbles, stains and words (see `objects`), the
last two severities of `black_corner`, which stand there in the wrong order, and the outlines of stains and letters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.readers.image import decode
from medjax.errors import check_choice
from medjax.evaluation.corruptions import filters, objects, pixels
from medjax.evaluation.corruptions.base import Corruption

_UP, _DOWN = (1.1, 1.2, 1.3, 1.4, 1.5), (0.9, 0.8, 0.7, 0.6, 0.5)
_STRONG_UP, _STRONG_DOWN = (1.1, 1.2, 1.3, 1.4, 1.6), (0.9, 0.8, 0.7, 0.6, 0.4)
_COARSE, _JPEG = (0.3, 0.25, 0.2, 0.15, 0.1), (50, 30, 15, 10, 7)
_LIGHT = {"brightness_up": _UP, "brightness_down": _DOWN, "contrast_up": _STRONG_UP, "contrast_down": _STRONG_DOWN}
_GAMMA = {"gamma_up": _STRONG_UP, "gamma_down": _STRONG_DOWN}

SETS: dict[str, dict[str, tuple[Any, ...]]] = {
    "path": {
        "pixelate": (0.8, 0.6, 0.4, 0.3, 0.25),
        "jpeg": _JPEG,
        "defocus_blur": ((3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2), (7, 0.3)),
        "motion_blur": ((5, 5), (10, 5), (15, 5), (15, 8), (15, 12)),
        "brightness_up": (1.1, 1.15, 1.2, 1.22, 1.25),
        "brightness_down": (0.85, 0.8, 0.75, 0.72, 0.7),
        "contrast_up": _STRONG_UP,
        "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "saturate": (0.05, 0.1, 0.15, 0.2, 0.25),
        "stain": (1, 2, 3, 4, 5),
        "bubble": ((7, 15), (10, 15), (12, 15), (15, 20), (17, 25)),
    },
    "blood": {
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg": _JPEG,
        "defocus_blur": ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)),
        "motion_blur": ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9)),
        "brightness_up": (1.1, 1.2, 1.3, 1.35, 1.4),
        "brightness_down": _DOWN,
        "contrast_up": (1.1, 1.15, 1.2, 1.25, 1.3),
        "contrast_down": _DOWN,
        "saturate": (0.05, 0.1, 0.15, 0.17, 0.2),
        "stain": (1, 2, 3, 3, 3),
        "bubble": ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12)),
    },
    "derma": {
        "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25),
        "jpeg": (30, 20, 15, 10, 7),
        "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
        "speckle_noise": (0.05, 0.15, 0.2, 0.35, 0.45),
        "impulse_noise": (0.01, 0.03, 0.06, 0.09, 0.17),
        "shot_noise": (60, 25, 18, 10, 5),
        "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
        "motion_blur": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.1, 0.01), (1.15, 0.01), (1.2, 0.02), (1.25, 0.02), (1.3, 0.03)),
        "brightness_up": _UP,
        "brightness_down": _DOWN,
        "contrast_up": _STRONG_UP,
        "contrast_down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "black_corner": (1.1, 1.05, 1.0, 0.95, 0.9),
        "characters": ((1, 6, 0.14), (2, 7, 0.15), (3, 8, 0.16), (4, 9, 0.17), (6, 10, 0.18)),
    },
    "retina": {
        "pixelate": (0.8, 0.6, 0.5, 0.4, 0.35),
        "jpeg": (30, 25, 20, 10, 5),
        "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
        "motion_blur": ((8, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "brightness_down": _DOWN,
        "contrast_down": _STRONG_DOWN,
    },
    "tissue": {
        "pixelate": (0.4, 0.3, 0.2, 0.15, 0.1),
        "jpeg": (25, 20, 15, 10, 7),
        "impulse_noise": (0.01, 0.015, 0.02, 0.025, 0.03),
        "gaussian_blur": (13, 15, 17, 21, 25),
        "brightness_up": (1.3, 1.4, 1.5, 1.6, 1.7),
        "brightness_down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "contrast_up": _STRONG_UP,
        "contrast_down": _STRONG_DOWN,
    },
    "oct": {
        "pixelate": _COARSE,
        "jpeg": (30, 15, 10, 7, 5),
        "speckle_noise": (0.15, 0.3, 0.4, 0.5, 0.6),
        "defocus_blur": ((0.5, 0.6), (1, 0.5), (1.5, 0.1), (2, 0.5), (2.5, 0.1)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "contrast_down": (0.6, 0.4, 0.3, 0.2, 0.15),
    },
    "breast": {
        "pixelate": _COARSE,
        "jpeg": _JPEG,
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "motion_blur": ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)),
        "brightness_up": (1.4, 1.5, 1.6, 1.8, 2.0),
        "brightness_down": (0.55, 0.5, 0.45, 0.4, 0.3),
        "contrast_down": _STRONG_DOWN,
    },
    "chest": {
        "pixelate": _COARSE,
        "jpeg": _JPEG,
        "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
        "speckle_noise": (0.05, 0.15, 0.2, 0.35, 0.45),
        "impulse_noise": (0.01, 0.03, 0.06, 0.09, 0.17),
        "shot_noise": (60, 25, 18, 10, 5),
        "gaussian_blur": (3, 5, 7, 9, 11),
        **_LIGHT,
        **_GAMMA,
    },
    "pneumonia": {
        "pixelate": (0.8, 0.7, 0.6, 0.5, 0.4),
        "jpeg": _JPEG,
        "gaussian_noise": (0.04, 0.05, 0.06, 0.07, 0.08),
        "speckle_noise": (0.05, 0.07, 0.1, 0.15, 0.2),
        "impulse_noise": (0.005, 0.01, 0.013, 0.017, 0.02),
        "shot_noise": (300, 200, 150, 100, 80),
        "gaussian_blur": (3, 5, 7, 9, 11),
        **_LIGHT,
        **_GAMMA,
    },
    "organ": {
        "pixelate": (0.7, 0.6, 0.5, 0.4, 0.35),
        "jpeg": _JPEG,
        "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
        "speckle_noise": (0.05, 0.1, 0.2, 0.3, 0.4),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.08),
        "shot_noise": (200, 100, 50, 25, 15),
        "gaussian_blur": (11, 13, 15, 17, 21),
        "brightness_up": (1.2, 1.3, 1.4, 1.5, 1.6),
        "brightness_down": (0.8, 0.75, 0.7, 0.65, 0.6),
        "contrast_up": (1.3, 1.4, 1.6, 1.7, 1.8),
        "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "gamma_up": (1.3, 1.4, 1.6, 1.8, 2.0),
        "gamma_down": _STRONG_DOWN,
    },
}

_KINDS: dict[str, Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]] = {
    "pixelate": pixels.pixelate,
    "jpeg": pixels.jpeg,
    "gaussian_noise": pixels.gaussian_noise,
    "speckle_noise": pixels.speckle_noise,
    "impulse_noise": pixels.impulse_noise,
    "shot_noise": pixels.shot_noise,
    "gaussian_blur": filters.gaussian_blur,
    "defocus_blur": filters.defocus_blur,
    "motion_blur": filters.motion_blur,
    "zoom_blur": filters.zoom_blur,
    "brightness_up": pixels.brightness,
    "brightness_down": pixels.brightness,
    "contrast_up": pixels.contrast,
    "contrast_down": pixels.contrast,
    "gamma_up": pixels.gamma,
    "gamma_down": pixels.gamma,
    "saturate": pixels.saturate,
    "black_corner": objects.black_corner,
    "characters": objects.characters,
    "bubble": objects.bubble,
    "stain": objects.stain,
}
_UNORDERED = {("oct", "defocus_blur")}  # a smaller disc with a softer edge may blur more


def image_corruptions(image_set: str = "chest") -> tuple[Corruption, ...]:
    """Those of a data set of MedMNIST-C; "organ" is OrganA, OrganC and OrganS.

    Raises:
      UserError: there is no such set.
    """
    check_choice("image set", image_set, SETS)
    return tuple(
        Corruption(k, partial(_apply, _KINDS[k]), v, monotone=(image_set, k) not in _UNORDERED)
        for k, v in SETS[image_set].items()
    )


def _apply(kind: Callable, item: np.ndarray, parameter: Any, rng: np.random.Generator, schema: Modality) -> np.ndarray:
    return pixels.as_bytes(kind(pixels.as_pixels(decoded(item)), parameter, rng))


def decoded(item: np.ndarray, shortest: int = 0) -> np.ndarray:
    """uint8[H, W] or [H, W, 3] of encoded bytes or pixels; a picture in colour without colours is gray.

    shortest: a picture whose shorter side is longer is shrunk to it; 0 leaves it as it is.
    """
    picture = decode(item, 3) if item.ndim == 1 else pixels.Image.fromarray(_eight_bits(item))
    side = min(picture.size)
    if 0 < shortest < side:
        size = (max(1, round(n * shortest / side)) for n in picture.size)
        picture = picture.resize(tuple(size), pixels.Image.Resampling.BILINEAR)
    found = np.asarray(picture)
    return found[..., 0] if found.ndim == 3 and (found == found[..., :1]).all() else found


def _eight_bits(item: np.ndarray) -> np.ndarray:
    return (item // 257).astype(np.uint8) if item.dtype == np.uint16 else item
