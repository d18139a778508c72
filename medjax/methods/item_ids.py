"""Ids of items by what they hold, so that an objective can tell the same sentence in two reports."""

import jax
import jax.numpy as jnp

from medjax.data.batch import Items

_KEY = 64  # of the multipliers, any number: ids are compared within one run of a program


def content_ids(items: Items) -> jax.Array:
    """uint32[B, N, 2]: equal for equal items and, but for a rare accident, for no others; zero where absent.

    Two multilinear hashes modulo 2^32 of what the items hold, word by word (Lemire and Kaser, arXiv 1202.4961).
    """
    b, n = items.mask.shape
    words = jnp.concatenate([_words(x, b, n) for x in jax.tree.leaves(items.value)], axis=2)
    factors = jax.random.bits(jax.random.key(_KEY), (2, words.shape[2] + 1), jnp.uint32)
    hashes = [jnp.sum(words * f[None, None, 1:], axis=2, dtype=jnp.uint32) + f[0] for f in factors]
    ids = jnp.maximum(jnp.stack(hashes, axis=2), 1)
    return jnp.where(items.mask[..., None], ids, 0)


def _words(x: jax.Array, b: int, n: int) -> jax.Array:
    x = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.int32)
    return jax.lax.bitcast_convert_type(x, jnp.uint32).reshape(b, n, -1)
