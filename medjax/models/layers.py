"""Transformer blocks. Shapes: b rows, L tokens, D width, H heads."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.partitioning import constrain, named

kernel_init = nn.initializers.xavier_uniform()
embed_init = nn.initializers.normal(0.02)
position_init = nn.initializers.normal(0.1)  # beside patch embeddings of unit size, 0.02 would not be seen


def dense(features: int, names: tuple[str | None, str | None], dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """A linear layer whose kernel `[in, out]` carries the logical names."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=named(kernel_init, *names),
        bias_init=named(nn.initializers.zeros, names[1]),
        name=name,
    )


class Dropout(nn.Module):
    """Dropout whose mask depends on the global row, not on how the batch is cut.

    So micro-batches, and any number of devices, drop the same elements as one big batch.
    """

    rate: float

    @nn.compact
    def __call__(self, x_b: jax.Array, rows: jax.Array, train: bool) -> jax.Array:
        """x: [b, ...]; rows: int32[b], the global row of each."""
        if not train or self.rate == 0.0:
            return x_b
        keys = row_keys(self.make_rng("dropout"), rows)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, x_b.shape[1:]))(keys)
        return jnp.where(keep, x_b / (1.0 - self.rate), 0).astype(x_b.dtype)


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """A PRNG key for each global row, int32[b] -> keys[b]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


class Attention(nn.Module):
    """Multi-head self-attention; padding on the right is given by lengths, as fused kernels want it."""

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_bld: jax.Array, lengths: jax.Array | None) -> jax.Array:
        b, length, width = x_bld.shape
        project = (dense(width, ("embed", "heads"), self.dtype, name)(x_bld) for name in ("query", "key", "value"))
        q, k, v = (x.reshape(b, length, self.heads, width // self.heads) for x in project)
        out = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths)
        return dense(width, ("heads", "embed"), self.dtype, "out")(out.reshape(b, length, width))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_bld: jax.Array) -> jax.Array:
        h = dense(self.hidden, ("embed", "mlp"), self.dtype, "up")(x_bld)
        return dense(x_bld.shape[-1], ("mlp", "embed"), self.dtype, "down")(nn.gelu(h, approximate=False))


class Block(nn.Module):
    """Attention and MLP, each with a residual; norms before them (ViT) or after the sum (BERT)."""

    heads: int
    mlp_ratio: float
    dropout: float
    norm_first: bool
    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_bld: jax.Array, lengths: jax.Array | None, rows: jax.Array, train: bool) -> jax.Array:
        attention = Attention(self.heads, self.dtype, name="attention")
        mlp = Mlp(int(x_bld.shape[-1] * self.mlp_ratio), self.dtype, name="mlp")
        x = self._residual(x_bld, lambda y: attention(y, lengths), "norm_attention", rows, train)
        x = self._residual(x, mlp, "norm_mlp", rows, train)
        return constrain(x, "batch", "tokens", "embed")

    def _residual(self, x: jax.Array, layer: Callable, norm: str, rows: jax.Array, train: bool) -> jax.Array:
        # Norms run in float32 whatever the compute dtype.
        normed = nn.LayerNorm(self.epsilon, name=norm)
        drop = Dropout(self.dropout)
        if self.norm_first:
            return x + drop(layer(normed(x).astype(self.dtype)), rows, train)
        return normed(x + drop(layer(x), rows, train)).astype(self.dtype)


class Blocks(nn.Module):
    """A stack of blocks."""

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    norm_first: bool = True
    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_bld: jax.Array, lengths: jax.Array | None, rows: jax.Array, train: bool) -> jax.Array:
        options = (self.heads, self.mlp_ratio, self.dropout, self.norm_first, self.epsilon, self.dtype)
        for i in range(self.depth):
            x_bld = Block(*options, name=f"block_{i}")(x_bld, lengths, rows, train)
        return x_bld


def masked_mean(x_bld: jax.Array, mask_bl: jax.Array) -> jax.Array:
    """[b, D]: the mean over the tokens whose mask is true; zero where none is."""
    weight = mask_bl[..., None].astype(x_bld.dtype)
    return jnp.sum(x_bld * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1.0)
