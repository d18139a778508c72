"""The light decoder of a masked autoencoder (arXiv 2111.06377, section 3)."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.blocks import Blocks, BlocksConfig
from medjax.models.layers import dense, embed_init, layer_norm
from medjax.models.partitioning import named


@dataclass(frozen=True)
class DecoderConfig:
    """width, depth and heads of its blocks. dtype: of the computation; parameters and norms are float32."""

    width: int = 128
    depth: int = 2
    heads: int = 4
    dtype: Literal["float32", "bfloat16"] = "float32"


class Decoder(nn.Module):
    """Restores patches from the visible tokens and a learned token in the place of the masked ones.

    parts: how many patches of how many values there are, one after the other, such as those of several modalities.
    """

    config: DecoderConfig
    parts: tuple[tuple[int, int], ...]

    @nn.compact
    def __call__(self, tokens_bkd: jax.Array, visible_bk: jax.Array, rows: jax.Array, keep=None) -> list[jax.Array]:
        """tokens: [b, K, D], of the patches visible int32[b, K]. keep: bool[b, L], patches that exist; default all.
        Returns float32[b, length, dim] of each part."""
        c, length = self.config, sum(n for n, _ in self.parts)
        x = dense(c.width, (None, "embed"), jnp.float32, "embed")(tokens_bkd.astype(jnp.float32))
        mask = self.param("mask_token", named(embed_init, None, None, "embed"), (1, 1, c.width))
        full = jnp.broadcast_to(mask, (x.shape[0], length, c.width))
        full = full.at[jnp.arange(x.shape[0])[:, None], visible_bk].set(x)
        positions = self.param("positions", named(embed_init, None, "tokens", "embed"), (1, length, c.width))
        full = full + jnp.broadcast_to(positions, full.shape)
        blocks = BlocksConfig(c.width, c.depth, c.heads, dtype=c.dtype)
        full = Blocks(blocks, name="blocks")(full.astype(c.dtype), rows, False, keep=keep)
        full = layer_norm(1e-6, "norm")(full.astype(jnp.float32))
        out, start = [], 0
        for i, (n, dim) in enumerate(self.parts):
            name = "out" if len(self.parts) == 1 else f"out_{i}"
            out.append(dense(dim, ("embed", "patch"), jnp.float32, name)(full[:, start : start + n]))
            start += n
        return out
