"""Attention rollout: where attention comes from, whatever it is asked (Abnar & Zuidema, arXiv 2005.00928)."""

import jax
import jax.numpy as jnp

from medjax.data.batch import Batch
from medjax.evaluation.explain.inside import Inside, look, map_paths, of_patches, reading_rows


def rollout(inside: Inside, params, batch: Batch, target: jax.Array) -> jax.Array:
    """float32[n, L - prefix]: shares that add up to 1 with those of the prefix.

    Section 3 of the paper: of every block `A = (mean over heads + I) / 2`, and the product of all; of it the rows that
    the tower pools. `target` has no part in it: it says what was looked at, not what spoke for something.
    """
    del target
    seen = look(inside, params, batch)
    length = seen.features.tokens.shape[1]
    total = jnp.broadcast_to(jnp.eye(length)[None], (seen.pooled.shape[0], length, length))
    for path in map_paths(inside):
        block = (seen.outputs[path].mean(axis=1) + jnp.eye(length)[None]) / 2
        total = block @ total
    return of_patches(inside, seen, jnp.einsum("nq,nqk->nk", reading_rows(inside, seen), total))
