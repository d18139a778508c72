"""Small layers that all encoders share. Shapes: b rows, L tokens, D width."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.partitioning import named

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


def layer_norm(epsilon: float, name: str) -> nn.LayerNorm:
    """A layer norm in float32, its variance from the centred values: `E[x^2] - E[x]^2` cancels."""
    return nn.LayerNorm(epsilon, use_fast_variance=False, name=name)


def default_rows(rows: jax.Array | None, batch: int) -> jax.Array:
    """int32[b]: the global rows, or 0, 1, ... where none are given."""
    return jnp.arange(batch, dtype=jnp.int32) if rows is None else rows


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """A PRNG key for each global row, int32[b] -> keys[b]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def keep_mask(key: jax.Array, rows: jax.Array, rate: float | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """bool[b, *shape], false with probability `rate`.

    It depends on the global row, not on how the batch is cut: micro-batches, and any number of devices, drop the same
    elements as one big batch.
    """
    return jax.vmap(lambda k: jax.random.bernoulli(k, 1.0 - rate, shape))(row_keys(key, rows))


def drop(x_b: jax.Array, key: jax.Array, rows: jax.Array, rate: float | jax.Array, whole: bool = False) -> jax.Array:
    """Dropout of the elements of `x`, [b, ...], or with `whole` of whole rows (stochastic depth, arXiv 1603.09382)."""
    shape = (1,) * (x_b.ndim - 1) if whole else x_b.shape[1:]
    return jnp.where(keep_mask(key, rows, rate, shape), x_b / (1.0 - rate), 0).astype(x_b.dtype)


class Dropout(nn.Module):
    """Dropout in training, by global rows."""

    rate: float

    @nn.compact
    def __call__(self, x_b: jax.Array, rows: jax.Array, train: bool) -> jax.Array:
        """x: [b, ...]; rows: int32[b], the global row of each."""
        if not train or self.rate == 0.0:
            return x_b
        return drop(x_b, self.make_rng("dropout"), rows, self.rate)


def masked_mean(x_bld: jax.Array, mask_bl: jax.Array) -> jax.Array:
    """[b, D]: the mean over the tokens whose mask is true; zero where none is."""
    weight = mask_bl[..., None].astype(x_bld.dtype)
    return jnp.sum(x_bld * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1.0)
