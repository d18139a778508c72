"""From embedded patches to features: extra tokens, blocks, norms and pooling. What ViTs of every modality share."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.models.base import Features
from medjax.models.blocks import Attention, Blocks, BlocksConfig, Mlp
from medjax.models.layers import dense, embed_init, layer_norm, masked_mean, position_init, row_keys
from medjax.models.partitioning import constrain, named


@dataclass(frozen=True)
class TrunkConfig(BlocksConfig):
    """pool: the class token, the mean of the patches, or attention of a learnt query to all tokens, with an MLP (MAP,
    arXiv 2106.04560). cls: a class token although another pool is used. cls_position: the class token has a position of
    its own, as released weights do. registers: further tokens for the encoder's own use (arXiv 2309.16588). pooler: a
    linear layer and a tanh on the pooled features. norm_before: a norm before the blocks (CLIP). norm: the last one, of
    all "tokens" or of what was "pooled" only. mask_token: keep the embedding that masked image modelling puts in the
    place of hidden patches. patch_dropout: share of the patches left out in training (arXiv 2212.00794).
    """

    pool: Literal["cls", "mean", "attention"] = "cls"
    cls: bool = False
    cls_position: bool = False
    registers: int = 0
    pooler: bool = False
    norm_before: bool = False
    norm: Literal["tokens", "pooled"] = "tokens"
    mask_token: bool = False
    patch_dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 <= self.patch_dropout < 1.0:
            raise UserError(f"patch_dropout={self.patch_dropout} must be in [0, 1)")

    @property
    def has_cls(self) -> bool:
        """Whether there is a class token."""
        return self.cls or self.pool == "cls"

    @property
    def prefix(self) -> int:
        """How many tokens stand before the patches."""
        return int(self.has_cls) + self.registers


class Trunk(nn.Module):
    """The base of encoders of patches; theirs is the embedding, `self.run` the rest."""

    config: TrunkConfig

    def table(self, name: str, length: int) -> jax.Array:
        """[1, L, D]: a learnt table of positions, of this length or the one it was made with."""
        stored = self.variables.get("params", {}).get(name)
        length = length if stored is None else stored.shape[1]
        return self.param(name, named(position_init, None, "tokens", "embed"), (1, length, self.config.width))

    def run(self, x_bld: jax.Array, rows, train: bool, keep=None, visible=None) -> Features:
        """x: [b, L, D], patches with their positions. keep: bool[b, L], which of them exist. visible: int32[b, K],
        which of them to encode, ascending; default all."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        if c.mask_token:
            self.param("mask_token", named(nn.initializers.zeros, None, "embed"), (1, c.width))
        if train and c.patch_dropout:
            visible = self._visible(x_bld.shape[1], rows) if visible is None else visible
        if visible is not None:
            x_bld = jnp.take_along_axis(x_bld, visible[..., None], axis=1)
            keep = None if keep is None else jnp.take_along_axis(keep, visible, axis=1)
        x = jnp.concatenate([*self._prefix(x_bld.shape[0], dtype), x_bld.astype(dtype)], axis=1)
        mask = jnp.ones(x_bld.shape[:2], bool) if keep is None else keep
        mask = jnp.pad(mask, ((0, 0), (c.prefix, 0)), constant_values=True)
        x = constrain(x, "batch", "tokens", "embed")
        if c.norm_before:
            x = layer_norm(c.epsilon, "norm_before")(x).astype(dtype)
        x = Blocks(c, name="blocks")(x, rows, train, keep=None if keep is None else mask)
        x = x.astype(jnp.float32)
        norm = layer_norm(c.epsilon, "norm")
        x = norm(x) if c.norm == "tokens" else x
        pooled = self._pool(x, mask)
        pooled = norm(pooled) if c.norm == "pooled" else pooled
        if c.pooler:
            pooled = jnp.tanh(dense(c.width, ("embed", None), jnp.float32, "pooler")(pooled))
        return Features(pooled, x, mask, c.prefix)

    def _prefix(self, rows: int, dtype) -> list[jax.Array]:
        c, tokens = self.config, []
        if c.has_cls:
            cls = self.param("cls", named(embed_init, None, None, "embed"), (1, 1, c.width))
            if c.cls_position:
                cls = cls + self.param("cls_position", named(embed_init, None, None, "embed"), (1, 1, c.width))
            tokens.append(cls)
        if c.registers:
            tokens.append(self.param("registers", named(embed_init, None, None, "embed"), (1, c.registers, c.width)))
        return [jnp.broadcast_to(t.astype(dtype), (rows, *t.shape[1:])) for t in tokens]

    def _visible(self, length: int, rows: jax.Array) -> jax.Array:
        number = max(1, round(length * (1.0 - self.config.patch_dropout)))
        keys = row_keys(self.make_rng("dropout"), rows)
        order = jax.vmap(lambda key: jax.random.permutation(key, length))(keys)
        return jnp.sort(order[:, :number], axis=1).astype(jnp.int32)

    def _pool(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        c = self.config
        if c.pool == "cls":
            return x[:, 0]
        if c.pool == "mean":
            return masked_mean(x[:, c.prefix :], mask[:, c.prefix :])
        return AttentionHead(c, name="attention_pool")(x, mask)


class SharedTrunk(Trunk):
    """What follows the embedding, for patches that encoders of several modalities have embedded: see `Trunk.run`."""

    @nn.compact
    def __call__(self, x_bld: jax.Array, rows, train: bool = False, keep=None, visible=None) -> Features:
        """x: [b, L, D]; the other arguments are those of `run`."""
        return self.run(x_bld, rows, train, keep, visible)


class AttentionHead(nn.Module):
    """A learnt query that attends to all tokens, and an MLP with a residual: [b, L, D] -> float32[b, D]."""

    config: TrunkConfig

    @nn.compact
    def __call__(self, x_bld: jax.Array, mask_bl: jax.Array) -> jax.Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        probe = self.param("probe", named(embed_init, None, None, "embed"), (1, 1, c.width))
        probe = jnp.broadcast_to(probe.astype(dtype), (x_bld.shape[0], 1, c.width))
        x = Attention(c, name="attention")(probe, x_bld.astype(dtype), keep=mask_bl)
        change = Mlp(c, name="mlp")(layer_norm(c.epsilon, "norm")(x).astype(dtype))
        return (x + change)[:, 0].astype(jnp.float32)
