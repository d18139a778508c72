"""A BERT-style text encoder (arXiv 1810.04805): post-norm blocks over word pieces."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.models.base import Features
from medjax.models.layers import Blocks, Dropout, embed_init, masked_mean
from medjax.models.partitioning import named


@dataclass(frozen=True)
class BertConfig:
    """vocab_size comes from the tokenizer. positions: the longest text. pool: the [CLS] token or the mean of all real
    tokens.
    """

    name: str = "bert"
    vocab_size: int = 0
    positions: int = 512
    width: int = 256
    depth: int = 4
    heads: int = 4
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    pool: Literal["cls", "mean"] = "mean"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.width % self.heads:
            raise UserError(f"a bert's width={self.width} must divide by its heads={self.heads}")


class Bert(nn.Module):
    """value: `tokens` int32[b, L], padded on the right, and `length` int32[b]."""

    config: BertConfig

    @nn.compact
    def __call__(self, value: dict, rows: jax.Array, train: bool) -> Features:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        tokens, length = value["tokens"], value["length"]
        if tokens.shape[1] > c.positions:
            raise UserError(
                f"texts of {tokens.shape[1]} tokens exceed the text tower's positions={c.positions}; raise it"
            )
        words = nn.Embed(c.vocab_size, c.width, embedding_init=named(embed_init, "vocab", "embed"), name="words")(
            tokens
        )
        table = self.param("positions", named(embed_init, None, "embed"), (c.positions, c.width))
        x = words + jnp.broadcast_to(table[None, : tokens.shape[1]], words.shape)
        x = nn.LayerNorm(1e-12, name="norm")(x).astype(dtype)
        x = Dropout(c.dropout)(x, rows, train)
        blocks = Blocks(c.depth, c.heads, c.mlp_ratio, c.dropout, False, 1e-12, dtype, name="blocks")
        x = blocks(x, length, rows, train).astype(jnp.float32)
        mask = jnp.arange(tokens.shape[1])[None] < length[:, None]
        return Features(x[:, 0] if c.pool == "cls" else masked_mean(x, mask), x, mask)
