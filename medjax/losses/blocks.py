"""Rows of a batch a few at a time, for formulas that need a whole row of the similarity matrix at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def by_blocks(function: Callable, rows, block: int):
    """`function(rows)` of a pytree of `[b, ...]` arrays, `block` rows at a time, each recomputed in the backward pass.

    function: gives arrays `[block]`, each row independent of the others. Rows are padded with zeros to whole blocks,
    so that a mask among them is False there.
    """
    b = jax.tree.leaves(rows)[0].shape[0]
    block = min(block, b)
    if block == b:
        return function(rows)
    split = jax.tree.map(
        lambda x: jnp.pad(x, [(0, -b % block)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, block, *x.shape[1:]), rows
    )
    out = jax.lax.map(jax.checkpoint(function), split)
    return jax.tree.map(lambda x: x.reshape(-1)[:b], out)
