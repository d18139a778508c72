"""A chest-like gray picture of a phantom patient: ellipses for lungs and heart, planted findings with boxes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ChestState:
    """What the picture shows. Sides are of the picture: -1 its left half, +1 its right half."""

    cardiomegaly: bool
    effusion: int  # 0 absent, else the side
    consolidation: int  # 0 absent, else the side
    upper: bool  # the zone of the consolidation
    heart: int  # the side the apex points to


def render_chest(state: ChestState, rng: np.random.Generator, size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """uint8[size, size], and the boxes float32[1, 4] (x0, y0, x1, y1 in [0, 1]) of effusion and consolidation."""
    axis = np.linspace(-1.0, 1.0, size)
    dx, dy = rng.normal(0, 0.03, 2)
    x, y = np.meshgrid(axis - dx, axis - dy)
    boxes = {}

    body = _ellipse(x, y, 0.0, 0.25, 0.95, 1.25)
    picture = 0.08 + 0.5 * body
    lungs = {side: _ellipse(x, y, 0.42 * side, -0.02, 0.30, 0.62) for side in (-1, 1)}
    picture -= 0.36 * (lungs[-1] + lungs[1])
    picture += 0.12 * np.exp(-((x / 0.07) ** 2)) * body  # spine
    ribs = np.cos(2 * np.pi * (y * 3.6 + 0.9 * x**2 + rng.uniform()))
    picture += 0.03 * np.maximum(ribs, 0) * (lungs[-1] + lungs[1])
    wide = 0.47 if state.cardiomegaly else 0.27
    wide += rng.normal(0, 0.02)
    heart = _ellipse(x, y, 0.16 * state.heart, 0.30, wide, 0.30)
    picture = np.maximum(picture, 0.62 * heart)
    if state.effusion:
        level = rng.uniform(0.05, 0.25)
        meniscus = level - 0.25 * (np.abs(x) - 0.42) * np.sign(np.abs(x) - 0.3)
        fluid = 1 / (1 + np.exp(-(y - meniscus) / 0.03)) * lungs[state.effusion]
        picture = np.maximum(picture, 0.66 * fluid)
        boxes["pleural_effusion"] = _box(0.42 * state.effusion + dx, (level + 0.60) / 2 + dy, 0.30, (0.60 - level) / 2)
    if state.consolidation:
        cx = 0.42 * state.consolidation + rng.normal(0, 0.04)
        cy = (-0.34 if state.upper else 0.10) + rng.normal(0, 0.03)
        radius = rng.uniform(0.16, 0.22)
        blob = np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / radius**2))
        picture += 0.5 * blob * (0.85 + 0.15 * np.cos(9 * x + 7 * y))
        boxes["consolidation"] = _box(cx + dx, cy + dy, radius, radius)
    picture = (picture - 0.4) * rng.uniform(0.9, 1.1) + 0.4 + rng.normal(0, 0.02)
    picture += rng.normal(0, 0.02, picture.shape)
    return (255 * picture.clip(0, 1)).astype(np.uint8), boxes


def _ellipse(x, y, cx: float, cy: float, rx: float, ry: float, sharp: float = 0.05) -> np.ndarray:
    """1 inside, 0 outside, with a soft edge."""
    r = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
    return 1 / (1 + np.exp(((r - 1) * min(rx, ry) / sharp).clip(-30, 30)))


def _box(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    corners = np.array([[cx - rx, cy - ry, cx + rx, cy + ry]], np.float32)
    return ((corners + 1) / 2).clip(0, 1)
