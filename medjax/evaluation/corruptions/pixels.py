"""Noise, tone and compression of pictures: float32[H, W, C] in [0, 1] -> the same, C being 1 or 3.

The kinds and their parameters are those of MedMNIST-C (arXiv 2406.17536) and, before it, ImageNet-C (arXiv 1903.12261).
"""

import io

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image

REFERENCE = 224  # pixels of the shorter side, for which parameters in pixels are meant


def gaussian_noise(x: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """sigma: of white noise, in units of the range."""
    return x + sigma * rng.standard_normal(x.shape, np.float32)


def speckle_noise(x: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """sigma: of white noise that multiplies the pixel."""
    return x + x * sigma * rng.standard_normal(x.shape, np.float32)


def impulse_noise(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """amount: share of the values that become black or white, half of them each."""
    hit, white = rng.random(x.shape) < amount, rng.random(x.shape) < 0.5
    return np.where(hit, white.astype(np.float32), x)


def shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """photons: counted in a white pixel."""
    return (rng.poisson(x * photons) / photons).astype(np.float32)


def brightness(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """factor: of all values."""
    return x * np.float32(factor)


def contrast(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """factor: of the distance to the mean of the gray picture."""
    mean = np.float32(gray(x).mean())
    return mean + np.float32(factor) * (x - mean)


def gamma(x: np.ndarray, power: float, rng: np.random.Generator) -> np.ndarray:
    """power: of the values; above 1 the picture becomes darker."""
    return x ** np.float32(power)


def saturate(x: np.ndarray, added: float, rng: np.random.Generator) -> np.ndarray:
    """added: to the saturation of HSV. A gray picture, which has no hue, stays as it is."""
    if x.shape[2] == 1:
        return x
    hsv = rgb_to_hsv(x)
    hsv[..., 1] = np.minimum(hsv[..., 1] + added, 1)
    return hsv_to_rgb(hsv).astype(np.float32)


def pixelate(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """share: of the resolution that is kept, by box filters."""
    picture = as_picture(x)
    small = max(1, int(picture.width * share)), max(1, int(picture.height * share))
    return as_pixels(picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX))


def jpeg(x: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """quality: of the encoder, 1 to 95."""
    out = io.BytesIO()
    as_picture(x).save(out, "JPEG", quality=quality)
    return as_pixels(Image.open(out))


def gray(x: np.ndarray) -> np.ndarray:
    """float32[H, W]: luma by ITU-R BT.601, as Pillow's mode L."""
    return x[..., 0] if x.shape[2] == 1 else x @ np.array([0.299, 0.587, 0.114], np.float32)


def as_picture(x: np.ndarray) -> Image.Image:
    """8-bit gray or RGB."""
    return Image.fromarray(as_bytes(x))


def as_bytes(x: np.ndarray) -> np.ndarray:
    """uint8[H, W] or [H, W, 3], clipped and rounded."""
    pixels = np.rint(x.clip(0, 1) * 255).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def as_pixels(picture: Image.Image | np.ndarray) -> np.ndarray:
    """float32[H, W, C] in [0, 1]."""
    pixels = np.asarray(picture, np.float32) / np.float32(255)
    return pixels[..., None] if pixels.ndim == 2 else pixels
