"""Blurs of pictures: float32[H, W, C] in [0, 1] -> the same. Lengths are pixels of a shorter side of 224."""

import math

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.signal import fftconvolve

from medjax.evaluation.corruptions.pixels import REFERENCE


def gaussian_blur(x: np.ndarray, kernel: int, rng: np.random.Generator) -> np.ndarray:
    """kernel: width, whose spread is 0.15 kernel + 0.35 as in OpenCV and torchvision."""
    return gaussian_filter(x, _scale(x) * (0.15 * kernel + 0.35), axes=(0, 1), mode="nearest")


def defocus_blur(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """parameters: radius of the disc, and the spread that smooths its edge."""
    radius, smooth = (_scale(x) * p for p in parameters)
    half = math.ceil(radius + 2 * smooth) + 1
    y, z = np.mgrid[-half : half + 1, -half : half + 1]
    disc = np.clip(radius + 0.5 - np.hypot(y, z), 0, 1)  # a pixel at the rim counts by its share
    return _convolved(x, gaussian_filter(disc, smooth))


def motion_blur(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """parameters: radius and spread of a trail in one direction within 45 degrees of the rows: 2 radius + 1 samples
    whose weights fall as a Gaussian, as ImageMagick's."""
    (radius, sigma), angle, scale = parameters, math.radians(rng.uniform(-45, 45)), _scale(x)
    along = np.arange(2 * radius + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2))
    half = math.ceil(2 * radius * scale) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    rows, columns = half + along * scale * math.sin(angle), half + along * scale * math.cos(angle)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    for dy in (0, 1):  # each sample is shared among the four pixels around it
        for dx in (0, 1):
            part = np.abs(1 - dy - (rows - top)) * np.abs(1 - dx - (columns - left))
            np.add.at(kernel, (top + dy, left + dx), weights * part)
    return _convolved(x, kernel)


def zoom_blur(x: np.ndarray, parameters: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """parameters: the largest zoom, and the step to it from 1; the mean of the picture and of all its zooms."""
    largest, step = parameters
    factors = np.arange(1, largest + 0.01, step)
    middle = (np.array(x.shape[:2]) - 1) / 2
    total = x.astype(np.float64)
    for factor in factors:
        for c in range(x.shape[2]):
            total[..., c] += affine_transform(
                x[..., c], [1 / factor] * 2, middle * (1 - 1 / factor), order=1, mode="nearest"
            )
    return (total / (len(factors) + 1)).astype(np.float32)


def _scale(x: np.ndarray) -> float:
    return min(x.shape[:2]) / REFERENCE


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    half = kernel.shape[0] // 2
    padded = np.pad(x, ((half, half), (half, half), (0, 0)), mode="edge")
    return fftconvolve(padded, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1)).astype(np.float32)
