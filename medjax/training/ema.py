"""A moving average of the weights, kept beside them."""

from typing import Any

import jax
import jax.numpy as jnp


def begin(params: Any) -> Any:
    """The average before the first update: the parameters, in float32 and in buffers of their own."""
    return jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)


def update(average: Any, params: Any, updates: jax.Array, decay: float) -> Any:
    """`d * average + (1 - d) * params` with `d = min(decay, (1 + n) / (10 + n))`, n = `updates` int32[] made before.

    The warm-up, of TensorFlow's ExponentialMovingAverage, lets the average of a short run forget its start.
    Where no average is kept, `average` is empty and stays so.
    """
    if not average:
        return average
    n = updates.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + n) / (10.0 + n))
    return jax.tree.map(lambda a, p: a + rate * (p.astype(jnp.float32) - a), average, params)
