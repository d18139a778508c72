"""Batch normalisation with statistics over the global batch, of the rows that are there (arXiv 1502.03167)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.partitioning import named


class BatchNorm(nn.Module):
    """Normalises each channel, in float32, by the moments of a batch in training and by running ones otherwise.

    Collection "batch_stats": `mean` and `var`, float32[C], moving averages with the weight `momentum` on the newest
    batch, and `batches`, int32[], how many were averaged. As in PyTorch the variance that normalises is the biased one
    and the variance that is averaged the unbiased one. On a sharded batch under jit the moments are of all its rows,
    on every device.
    """

    epsilon: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, present: jax.Array | None, train: bool) -> jax.Array:
        """x: [b, ..., C]. present: bool[b]; rows that are absent count nowhere and come out as zeros; None: all count.

        Running statistics move in training where "batch_stats" is mutable, unless no row is present.
        """
        features = x.shape[-1]
        scale = self.param("scale", named(nn.initializers.ones, None), (features,))
        bias = self.param("bias", named(nn.initializers.zeros, None), (features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,))
        batches = self.variable("batch_stats", "batches", jnp.zeros, (), jnp.int32)
        there = None if present is None else present.reshape(-1, *(1,) * (x.ndim - 1))
        mean, var = running_mean.value, running_var.value
        x = x.astype(jnp.float32)
        if train:
            mean, var, count = _moments(x, there)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                rate = jnp.where(count > 0, self.momentum, 0.0)
                unbiased = var * count / jnp.maximum(count - 1, 1)
                running_mean.value += rate * (jax.lax.stop_gradient(mean) - running_mean.value)
                running_var.value += rate * (jax.lax.stop_gradient(unbiased) - running_var.value)
                batches.value += (count > 0).astype(jnp.int32)
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        y = (x - _wide(mean, x)) * _wide(factor, x) + _wide(bias, x)
        # Layer by layer, moments of other rows could blow an absent row up to infinity, and its gradient to NaN.
        return y if there is None else jnp.where(there, y, 0.0)


def _moments(x: jax.Array, there: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and biased variance [C] over all axes but the last, and float32[], how many values each is of."""
    axes = tuple(range(x.ndim - 1))
    rows = jnp.float32(x.shape[0]) if there is None else there.sum(dtype=jnp.float32)
    count = rows * math.prod(x.shape[1:-1])
    where = True if there is None else there
    mean = jnp.sum(x, axes, where=where) / jnp.maximum(count, 1)
    # Not `E[x^2] - E[x]^2`, which cancels where the mean is large.
    var = jnp.sum((x - _wide(mean, x)) ** 2, axes, where=where) / jnp.maximum(count, 1)
    return mean, var, count


def _wide(channels: jax.Array, x: jax.Array) -> jax.Array:
    """[C] beside [b, ..., C]."""
    return jnp.expand_dims(channels, tuple(range(x.ndim - 1)))
