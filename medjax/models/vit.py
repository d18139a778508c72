"""Vision transformers (arXiv 2010.11929) for pictures, volumes and video, with one tree of parameters."""

import math
from dataclasses import dataclass
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.models.base import Features
from medjax.models.layers import default_rows, dense
from medjax.models.positions import resize_positions, sincos_positions
from medjax.models.trunk import Trunk, TrunkConfig


@dataclass(frozen=True)
class VitConfig(TrunkConfig):
    """variant: a size by its published name, such as "B/16" (`medjax.models.sizes`); further options change it.

    patch: pixels a side. frames: slices or frames of a patch; a picture, which has one, is repeated to fill it.
    channels: of the patch embedding, 0 for those of the data; data of one channel are repeated to fill them. So
    pictures [b, H, W, C], video [b, T, H, W, C] and volumes [b, T, H, W, 1] pass through the same weights.
    positions: a learnt table, or fixed sines and cosines of each axis. grid: of the learnt table, () for that of the
    first input; other grids take it interpolated, with `antialias` or without. depth_grid: rows of a second table for
    the axis of slices or frames, whose positions are added to those of the plane; 0 where all inputs are pictures.
    patch_bias: of the embedding.
    """

    name: str = "vit"
    variant: str = ""
    patch: int = 16
    frames: int = 1
    channels: int = 0
    positions: Literal["learned", "sincos"] = "learned"
    grid: tuple[int, ...] = ()
    antialias: bool = False
    depth_grid: int = 0
    patch_bias: bool = True


class VisionTransformer(Trunk):
    """value: [b, H, W, C] or [b, T, H, W, C]; pictures count as one frame."""

    config: VitConfig

    def patchify(self, value: jax.Array) -> jax.Array:
        """[b, L, P]: what one token sees, and a masked autoencoder restores; L runs over slices, rows, columns, P over
        slices, rows, columns, channels."""
        c = self.config
        x = self._volume(value)
        return einops.rearrange(x, "b (t f) (h p) (w q) c -> b (t h w) (f p q c)", f=c.frames, p=c.patch, q=c.patch)

    def grid(self, value: jax.Array) -> tuple[int, int, int]:
        """How many patches there are along slices, rows and columns."""
        c, (_, t, h, w, _) = self.config, jax.eval_shape(self._volume, value).shape
        return t // c.frames, h // c.patch, w // c.patch

    def _volume(self, value: jax.Array) -> jax.Array:
        c = self.config
        x = value[:, None] if value.ndim == 4 else value
        if x.ndim != 5:
            raise UserError(f"a vit reads [b, H, W, C] or [b, T, H, W, C], got {list(value.shape)}")
        t, height, width, channels = x.shape[1:]
        if t == 1:
            x = jnp.broadcast_to(x, (x.shape[0], c.frames, *x.shape[2:]))
        elif t % c.frames:
            raise UserError(f"{t} slices do not divide into patches of {c.frames}; pad them, or change frames")
        if height % c.patch or width % c.patch:
            raise UserError(
                f"a picture of {height}x{width} pixels does not divide into patches of {c.patch}; change size or patch"
            )
        if c.channels and channels == 1:
            x = jnp.broadcast_to(x, (*x.shape[:-1], c.channels))
        elif c.channels and channels != c.channels:
            raise UserError(f"the vit has weights for {c.channels} channels, and the picture has {channels}")
        return x

    @nn.compact
    def __call__(
        self,
        value: jax.Array,
        rows=None,
        train: bool = False,
        visible: jax.Array | None = None,
        embedded: bool = False,
    ) -> Features | tuple[jax.Array, None]:
        """visible: int32[b, K], the patches to encode (a masked autoencoder's); default all. embedded: stop at the
        patches with their positions, [b, L, D], and None, for all of them exist."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        x = dense(c.width, ("patch", "embed"), dtype, "patch_embed", c.patch_bias)(self.patchify(value).astype(dtype))
        x = x + self._positions(self.grid(value)).astype(dtype)
        if embedded:
            return x, None
        return self.run(x, default_rows(rows, x.shape[0]), train, visible=visible)

    def _positions(self, grid: tuple[int, int, int]) -> jax.Array:
        """[1, L, D]"""
        c, (t, h, w) = self.config, grid
        if c.positions == "sincos":
            return jnp.asarray(sincos_positions((h, w) if t == 1 else grid, c.width))[None]
        table = self.table("positions", math.prod(c.grid or (h, w)))[0]
        x = resize_positions(table, self._plane(table.shape[0], (h, w)), (h, w), c.antialias)[None]
        if not c.depth_grid:
            if t > 1:
                raise UserError("the vit has positions for pictures only; set depth_grid for volumes and video")
            return x
        depth = resize_positions(self.table("depth_positions", c.depth_grid)[0], (c.depth_grid,), (t,))
        return (depth[:, None] + x).reshape(1, t * h * w, c.width)

    def _plane(self, length: int, grid: tuple[int, int]) -> tuple[int, ...]:
        """Rows and columns of the table."""
        if self.config.grid or length == math.prod(grid):
            return self.config.grid or grid
        side = math.isqrt(length)
        if side * side != length:
            raise UserError(f"the vit has {length} positions and the picture {grid[0]}x{grid[1]} patches; set grid")
        return side, side
