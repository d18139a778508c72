"""Positions of patches: tables that fit other grids, and fixed ones made of sines and cosines."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def resize_positions(table_ld: jax.Array, old: Sequence[int], new: Sequence[int], antialias: bool = False) -> jax.Array:
    """[prod(new), D]: a table of positions on the grid `old` for the grid `new`, axis by axis.

    Cubic convolution between cell centres as `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`
    does it, with or without `antialias`: released ViTs do one or the other.
    """
    if tuple(old) == tuple(new):
        return table_ld
    x = table_ld.reshape(*old, table_ld.shape[-1])
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        weights = jnp.asarray(cubic_weights(before, after, antialias), x.dtype)
        moved = jnp.moveaxis(x, axis, 0)
        x = jnp.moveaxis(jnp.einsum("nm,m...->n...", weights, moved, precision="highest"), 0, axis)
    return x.reshape(math.prod(new), table_ld.shape[-1])


def cubic_weights(old: int, new: int, antialias: bool = False) -> np.ndarray:
    """float32[new, old]: what each old cell adds to each new one (Keys 1981).

    PyTorch takes a = -0.75 and repeats the edges; antialiased a = -0.5, a kernel as wide as a new cell, and what lies
    beyond the edges left out.
    """
    scale = old / new
    where = (np.arange(new) + 0.5) * scale - 0.5
    if antialias:
        wide = max(scale, 1.0)
        weights = _cubic((np.arange(old)[None] - where[:, None]) / wide, -0.5)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    base = np.floor(where).astype(int)
    weights = np.zeros((new, old))
    for offset in range(-1, 3):
        cell = np.clip(base + offset, 0, old - 1)
        np.add.at(weights, (np.arange(new), cell), _cubic(where - (base + offset), -0.75))
    return weights.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def sincos_positions(grid: Sequence[int], width: int, temperature: float = 10000.0) -> np.ndarray:
    """float32[prod(grid), width]: sines and cosines of each axis' coordinate side by side (arXiv 2104.02057),
    channels that do not divide among the axes being zero."""
    each = width // (2 * len(grid))
    omega = temperature ** (-np.arange(each) / each)
    axes = np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")
    parts = [f(axis.reshape(-1, 1) * omega) for axis in axes for f in (np.sin, np.cos)]
    table = np.concatenate(parts, axis=1)
    return np.pad(table, ((0, 0), (0, width - table.shape[1]))).astype(np.float32)
