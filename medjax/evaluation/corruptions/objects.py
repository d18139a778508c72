"""Things in front of the object: float32[H, W, C] in [0, 1] -> the same. Lengths are pixels of a shorter side of 224.

MedMNIST-C draws how many there are from 1 up to the parameter; here it is the parameter, so that levels are ordered,
and a level adds to what the one before shows.
"""

import math
import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medjax.evaluation.corruptions.pixels import REFERENCE

_WORD = 10  # letters drawn for each word, whatever its length


def black_corner(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """share: radius, in halves of the shorter side, of the circle outside of which all is black (a dermatoscope)."""
    h, w = x.shape[:2]
    y, z = np.mgrid[:h, :w]
    return x * (np.hypot(y - h // 2, z - w // 2) <= share * min(h, w) / 2)[..., None]


def characters(x: np.ndarray, parameters: tuple[int, int, float], rng: np.random.Generator) -> np.ndarray:
    """parameters: words of random letters, the most letters of a word, and their height in hundreds of pixels."""
    (words, letters, size), (h, w) = parameters, x.shape[:2]
    font = ImageFont.load_default(max(6.0, 100 * size * min(h, w) / REFERENCE))
    out = x.copy()
    for _ in range(words):
        text = "".join(rng.choice(list(string.ascii_lowercase), _WORD))[: 3 + int(rng.random() * (letters - 2))]
        place, colour = rng.random(2), rng.random(3, np.float32)
        mask = Image.new("L", (w, h))
        corner = place * (0.7 * w, 0.9 * h)
        ImageDraw.Draw(mask).text((float(corner[0]), float(corner[1])), text, fill=255, font=font)
        share = np.asarray(mask, np.float32)[..., None] / np.float32(255)
        out = out * (1 - share) + colour[: x.shape[2]] * share
    return out


def bubble(x: np.ndarray, parameters: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """parameters: the largest radius, and how many bubbles: white with opacity 0.39 and a rim of 2 pixels of 0.51."""
    (largest, count), (h, w) = parameters, x.shape[:2]
    scale, opacity = min(h, w) / REFERENCE, np.zeros((h, w), np.float32)
    for _ in range(count):
        place, size = rng.random(2) * (h, w), rng.random()
        radius = 3 + size * (largest - 3)
        distance = _distance(h, w, place) / scale
        opacity = np.maximum(opacity, np.select([distance <= radius, distance <= radius + 2], [0.39, 0.51], 0))
    return x + (1 - x) * opacity[..., None].astype(np.float32)


def stain(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """count: of dark blots of irregular outline, 8 to 20 pixels in radius, soft at the edge."""
    h, w = x.shape[:2]
    scale, light = min(h, w) / REFERENCE, np.ones((h, w), np.float32)
    for _ in range(count):
        place, radius = rng.random(2) * (h, w), rng.uniform(8, 20)
        phases, waves = rng.uniform(0, 2 * math.pi, 3), rng.uniform(0, 0.2, 3)
        y, z = np.mgrid[:h, :w] - place[:, None, None]
        angle = np.arctan2(y, z)
        outline = 1 + sum(a * np.sin((k + 2) * angle + p) for k, (a, p) in enumerate(zip(waves, phases, strict=True)))
        edge = (radius * outline - np.hypot(y, z) / scale) / 2
        light = np.minimum(light, 1 - 0.85 / (1 + np.exp(-edge.clip(-30, 30))))
    return x * light[..., None].astype(np.float32)


def _distance(h: int, w: int, place: np.ndarray) -> np.ndarray:
    y, z = np.mgrid[:h, :w] - place[:, None, None]
    return np.hypot(y, z)
