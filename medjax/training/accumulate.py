"""Exact gradient accumulation: the batch is encoded part by part, and its loss stays that of the whole batch."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from medjax.data.batch import Batch
from medjax.errors import UserError
from medjax.methods import Encoded
from medjax.sharding import BATCH_AXES, current_batch_axes

_OPTION = "config.train.micro_batch"


def micro_batches(batch_size: int, devices: int, micro_batch: int) -> int:
    """How many micro-batches each of the devices has, of `micro_batch` of its own rows; 0 is all of them.

    Raises:
      UserError: they do not divide the rows of a device.
    """
    rows = batch_size // devices
    if micro_batch == 0:
        return 1
    if micro_batch < 0 or rows % micro_batch:
        valid = [n for n in range(1, rows + 1) if rows % n == 0]
        below = max((n for n in valid if n <= micro_batch), default=1)
        above = min((n for n in valid if n >= micro_batch), default=rows)
        near = f"{below}" if below == above else f"{below} or {above}"
        raise UserError(
            f"{_OPTION}={micro_batch} does not divide the {rows} examples of each device "
            f"(config.data.batch_size={batch_size} on {devices}); use {near}, or 0 for all at once"
        )
    return rows // micro_batch


def encode_in_micro_batches(encode: Callable[[Batch], Encoded], batch: Batch, micro_batch: int) -> Encoded:
    """What `encode` makes of the batch, with the memory of `micro_batch` examples a device, also in the backward pass.

    GradCache (arXiv 2101.06983, section 3): the first pass keeps nothing but the result; in the backward pass each
    micro-batch is encoded again, and takes the cotangents of its own rows. `encode` draws its randomness from rows of
    the global batch, so both passes and the whole batch see the same dropout and masks. Each device cuts the rows that
    it has, so that none moves to another.

    Raises:
      UserError: micro-batches that do not divide the rows of a device, or an encoder that couples the rows of a batch.
    """
    axes = current_batch_axes()
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.shape[a] for a in axes) if axes else 1
    count = micro_batches(batch.size, devices, micro_batch)
    if count == 1:
        return encode(batch)
    cut = jax.tree.map(lambda x: _on_batch(x.reshape(devices, count, micro_batch, *x.shape[1:])), batch)

    def part(x: jax.Array, i: jax.Array) -> jax.Array:
        x = jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)
        return _on_batch(x.reshape(devices * micro_batch, *x.shape[2:]))

    def body(carry: None, i: jax.Array) -> tuple[None, Encoded]:
        return carry, encode(jax.tree.map(lambda x: part(x, i), cut))

    # In a loop the two encodings are apart in any case, so nothing need keep the compiler from merging them.
    _, parts = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), None, jnp.arange(count))
    if parts.updates:
        raise UserError(
            f"{_OPTION}={micro_batch}: batch norms of config.method.towers.{', '.join(sorted(parts.updates))} take "
            "moments over the whole batch, which no micro-batch has; set norm='group' or frozen_statistics=True there, "
            f"or {_OPTION}=0"
        )

    def joined(x: jax.Array) -> jax.Array:
        x = x.reshape(count, devices, micro_batch, *x.shape[2:])
        return _on_batch(jnp.swapaxes(x, 0, 1).reshape(batch.size, *x.shape[3:]))

    return jax.tree.map(joined, parts)


def _on_batch(x: jax.Array) -> jax.Array:
    """Its first axis lies over the devices as the batch does."""
    return x if current_batch_axes() is None else jax.lax.with_sharding_constraint(x, jax.P(BATCH_AXES))
