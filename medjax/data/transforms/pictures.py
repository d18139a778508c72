"""Random changes of pictures: geometry of a Pillow image, intensity of pixels in [0, 1]."""

import math
from typing import Any

import numpy as np
from PIL import Image

_BILINEAR = Image.Resampling.BILINEAR


def random_crop(picture: Image.Image, size: int, share: float, aspect: float, rng: np.random.Generator) -> Image.Image:
    """A rectangle of at least `share` of the area as a square of `size` pixels, with antialiasing (Inception's random
    resized crop, arXiv 1409.4842).

    aspect: how many times wider than the picture it may be, or higher; uniform in its logarithm. What would be longer
    than the picture is cut.
    """
    width, height = picture.size
    area = rng.uniform(share, 1.0)
    stretch = math.exp(rng.uniform(-1, 1) * math.log(aspect) / 2)
    w, h = min(1.0, math.sqrt(area) * stretch) * width, min(1.0, math.sqrt(area) / stretch) * height
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return picture.resize((size, size), _BILINEAR, box=(left, top, left + w, top + h))


def random_affine(picture: Image.Image, c: Any, rng: np.random.Generator) -> Image.Image:
    """Zoom, shift, rotation and shear about the middle of a square; what comes from beyond it is black.

    c: has zoom (+- share of the size), shift (+- share of the side), rotate and shear (+- degrees).
    """
    side = picture.size[0]
    zoom = 1 + rng.uniform(-c.zoom, c.zoom)
    dx, dy = rng.uniform(-c.shift, c.shift, 2) * side
    angle = math.radians(rng.uniform(-c.rotate, c.rotate)) if c.rotate else 0.0
    shear = math.tan(math.radians(rng.uniform(-c.shear, c.shear))) if c.shear else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    # From a place in the result to one in the picture: the inverse of rotation after shear along the rows.
    a, b, d, e = cos + shear * sin, sin - shear * cos, -sin, cos
    middle = side / 2
    x, y = middle + dx, middle + dy
    affine = (a / zoom, b / zoom, middle - (a * x + b * y) / zoom, d / zoom, e / zoom, middle - (d * x + e * y) / zoom)
    return picture.transform(picture.size, Image.Transform.AFFINE, affine, _BILINEAR)


def random_flip(picture: np.ndarray, c: Any, rng: np.random.Generator) -> np.ndarray:
    """[H, W, ...] mirrored left to right with probability `c.flip`, upside down with probability `c.flip_vertical`."""
    if c.flip and rng.random() < c.flip:
        picture = picture[:, ::-1]
    if c.flip_vertical and rng.random() < c.flip_vertical:
        picture = picture[::-1]
    return picture


def random_tone(pixels: np.ndarray, c: Any, rng: np.random.Generator) -> np.ndarray:
    """float32 pixels in [0, 1] -> the same range: gamma, then blur, then brightness, clipped, then noise, clipped.

    c: has gamma (pixels to a power from 1 / (1 + gamma) to 1 + gamma, uniform in its logarithm), blur (spread of a
    Gaussian, up to so many pixels), brightness (added, +-) and noise (spread, the same in all channels of a pixel).
    """
    if c.gamma:
        pixels = pixels ** np.float32(math.exp(rng.uniform(-1, 1) * math.log1p(c.gamma)))
    if c.blur:
        from scipy.ndimage import gaussian_filter

        pixels = gaussian_filter(pixels, rng.uniform(0, c.blur), axes=(0, 1), mode="nearest")
    if c.brightness:
        pixels = np.clip(pixels + np.float32(rng.uniform(-c.brightness, c.brightness)), 0, 1)
    if c.noise:
        noise = rng.standard_normal(pixels.shape[:2], np.float32).reshape(*pixels.shape[:2], *[1] * (pixels.ndim - 2))
        pixels = np.clip(pixels + np.float32(c.noise) * noise, 0, 1)
    return pixels
