"""Transformers over word pieces: BERT, RoBERTa, and the text towers of CLIP and SigLIP."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.models.base import Features
from medjax.models.blocks import Activation, Blocks, BlocksConfig
from medjax.models.layers import default_rows, dense, drop, embed_init, layer_norm, masked_mean
from medjax.models.partitioning import constrain, dividing, named

Pool = Literal["cls", "mean", "max", "eos", "last"]
Pooler = Literal["none", "linear", "tanh", "kept"]


@dataclass(frozen=True)
class TextTowerConfig(BlocksConfig):
    """variant: a size by its published name (`medjax.models.sizes`), further options change it. vocab_size comes from
    the tokenizer. positions: the longest text, in tokens. position_offset: rows at the start of the table that no
    token takes, as RoBERTa has. types: of segments, 0 for none; all tokens are of the first. embed_norm: a norm of the
    embeddings. last_norm: a norm after the blocks. padded: padding is attended to, as SigLIP does.

    pool: the first token, the mean or maximum of the real ones, the last real one ("eos"), or the last of all. pooler:
    a linear layer on the pooled features, and a "tanh" (BERT); "kept" carries its weights along without use.
    """

    name: str = "bert"
    variant: str = ""
    vocab_size: int = 0
    positions: int = 512
    position_offset: int = 0
    types: int = 0
    width: int = 256
    depth: int = 4
    heads: int = 4
    norm_first: bool = False
    epsilon: float = 1e-12
    embed_norm: bool = True
    last_norm: bool = False
    padded: bool = False
    pool: Pool = "mean"
    pooler: Pooler = "none"
    pooler_width: int = 0


@dataclass(frozen=True)
class RobertaConfig(TextTowerConfig):
    """RoBERTa's defaults (arXiv 1907.11692): two rows of the table of positions stay unused."""

    name: str = "roberta"
    position_offset: int = 2
    epsilon: float = 1e-5


@dataclass(frozen=True)
class ClipTextConfig(TextTowerConfig):
    """CLIP's defaults (arXiv 2103.00020): causal, norms first, pooled at the end token."""

    name: str = "clip_text"
    positions: int = 77
    norm_first: bool = True
    epsilon: float = 1e-5
    activation: Activation = "quick_gelu"
    causal: bool = True
    embed_norm: bool = False
    last_norm: bool = True
    pool: Pool = "eos"


@dataclass(frozen=True)
class SiglipTextConfig(TextTowerConfig):
    """SigLIP's defaults (arXiv 2303.15343): padding takes part, the last position is pooled by a linear layer."""

    name: str = "siglip_text"
    positions: int = 64
    norm_first: bool = True
    epsilon: float = 1e-6
    activation: Activation = "gelu_tanh"
    embed_norm: bool = False
    last_norm: bool = True
    padded: bool = True
    pool: Pool = "last"
    pooler: Pooler = "linear"


class Words(nn.Module):
    """The table of word pieces. int32[b, L] -> float32[b, L, D]."""

    rows: int
    width: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """The rows of the tokens."""
        table = self.param("embedding", named(embed_init, "vocab", "embed"), (self.rows, self.width))
        # Gathered over fsdp before the look-up: of a table split by width, every device would look up the whole batch.
        table = constrain(table, dividing("vocab", self.rows), "embed")
        return jnp.take(table, tokens, axis=0).astype(jnp.float32)


class TextTransformer(nn.Module):
    """tokens: int32[b, L], padded on the right."""

    config: TextTowerConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, rows=None, train: bool = False, lengths: jax.Array | None = None) -> Features:
        """lengths: int32[b], how many tokens are real; default all."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        rows = default_rows(rows, tokens.shape[0])
        mask = jnp.ones(tokens.shape, bool)
        if lengths is not None and not c.padded:
            mask = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
        x = self._embed(tokens, mask)
        if c.embed_norm:
            x = layer_norm(c.epsilon, "norm")(x)
        if train and c.dropout:
            x = drop(x, self.make_rng("dropout"), rows, c.dropout)
        x = constrain(x.astype(dtype), "batch", "tokens", "embed")
        x = Blocks(c, name="blocks")(x, rows, train, lengths=None if c.padded else lengths).astype(jnp.float32)
        if c.last_norm:
            x = layer_norm(c.epsilon, "last_norm")(x)
        pooled = self._pool(x, mask)
        if c.pooler != "none":
            changed = dense(c.pooler_width or c.width, ("embed", None), jnp.float32, "pooler")(pooled)
            pooled = {"linear": changed, "tanh": jnp.tanh(changed), "kept": pooled}[c.pooler]
        return Features(pooled, x, mask)

    def _embed(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """float32[b, L, D]"""
        c, length = self.config, tokens.shape[1]
        if length > c.positions:
            raise UserError(f"texts of {length} tokens exceed the text tower's positions={c.positions}; raise it")
        x = Words(c.vocab_size, c.width, name="words")(tokens)
        rows = c.positions + c.position_offset
        table = self.param("positions", named(embed_init, None, "embed"), (rows, c.width))
        if c.position_offset:
            # RoBERTa gives padding the row before the first position.
            place = jnp.arange(length)[None] + c.position_offset
            x = x + table[jnp.where(mask, place, c.position_offset - 1)]
        else:
            x = x + jnp.broadcast_to(table[None, :length], x.shape)
        if c.types:
            x = x + self.param("types", named(embed_init, None, "embed"), (c.types, c.width))[:1, None]
        return x

    def _pool(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        pool = self.config.pool
        if pool == "mean":
            return masked_mean(x, mask)
        if pool == "max":
            return jnp.max(jnp.where(mask[..., None], x, jnp.finfo(x.dtype).min), axis=1)
        if pool == "eos":
            last = jnp.maximum(mask.sum(axis=1) - 1, 0)
            return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return x[:, 0 if pool == "cls" else -1]
