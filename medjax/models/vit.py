"""Vision transformers over patches: of a picture, or of the time axis of an ECG (arXiv 2010.11929)."""

from dataclasses import dataclass
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.models.base import Features
from medjax.models.layers import Blocks, dense, embed_init, masked_mean, position_init
from medjax.models.partitioning import constrain, named


@dataclass(frozen=True)
class VitConfig:
    """patch: pixels a side, or time samples. width D, depth, heads H. pool: the class token or the mean of patches.
    dtype: of the computation; parameters and norms are float32.
    """

    name: str = "vit"
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    pool: Literal["cls", "mean"] = "cls"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.width % self.heads:
            raise UserError(f"a vit's width={self.width} must divide by its heads={self.heads}")


def image_patches(x_bhwc: jax.Array, patch: int) -> jax.Array:
    """[b, L, patch * patch * C]: the patches of pictures, row by row; within a patch rows, columns, channels."""
    height, width = x_bhwc.shape[1:3]
    if height % patch or width % patch:
        raise UserError(
            f"a picture of {height}x{width} pixels does not divide into patches of {patch}; change size or patch"
        )
    return einops.rearrange(x_bhwc, "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)


def ecg_patches(x_bct: jax.Array, patch: int) -> jax.Array:
    """[b, L, C * patch]: windows of all leads; within a window leads, then time."""
    if x_bct.shape[2] % patch:
        raise UserError(
            f"an ECG of {x_bct.shape[2]} samples does not divide into patches of {patch}; change samples or patch"
        )
    return einops.rearrange(x_bct, "b c (l p) -> b l (c p)", p=patch)


PATCHES = {"vit": image_patches, "ecg_vit": ecg_patches}


class VisionTransformer(nn.Module):
    """value: pictures [b, H, W, C] (name "vit") or ECGs [b, C, T] (name "ecg_vit")."""

    config: VitConfig

    def patchify(self, value: jax.Array) -> jax.Array:
        """[b, L, P]: what one token sees, and a masked autoencoder restores."""
        return PATCHES[self.config.name](value, self.config.patch)

    @nn.compact
    def __call__(self, value: jax.Array, rows: jax.Array, train: bool, visible: jax.Array | None = None) -> Features:
        """visible: int32[b, K], the patches to encode (a masked autoencoder's); default all."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        patches = self.patchify(value).astype(dtype)
        x = dense(c.width, ("patch", "embed"), dtype, "patch_embed")(patches)
        positions = self.param("positions", named(position_init, None, "tokens", "embed"), (1, x.shape[1], c.width))
        x = x + jnp.broadcast_to(positions.astype(dtype), x.shape)
        if visible is not None:
            x = jnp.take_along_axis(x, visible[..., None], axis=1)
        if c.pool == "cls":
            cls = self.param("cls", named(embed_init, None, None, "embed"), (1, 1, c.width))
            x = jnp.concatenate([jnp.broadcast_to(cls.astype(dtype), (x.shape[0], 1, c.width)), x], axis=1)
        x = constrain(x, "batch", "tokens", "embed")
        x = Blocks(c.depth, c.heads, c.mlp_ratio, c.dropout, dtype=dtype, name="blocks")(x, None, rows, train)
        x = nn.LayerNorm(1e-6, name="norm")(x)
        tokens = x[:, 1:] if c.pool == "cls" else x
        mask = jnp.ones(tokens.shape[:2], bool)
        return Features(x[:, 0] if c.pool == "cls" else masked_mean(tokens, mask), tokens, mask)
