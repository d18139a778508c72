"""Attention weighted by what it does for a score (Chefer et al., "Generic Attention-model Explainability for
Interpreting Bi-Modal and Encoder-Decoder Transformers", arXiv 2103.15679)."""

import jax
import jax.numpy as jnp

from medjax.data.batch import Batch
from medjax.evaluation.explain.inside import (
    Inside,
    map_paths,
    of_patches,
    outputs_and_gradients,
    reading_rows,
)

_POOL = "attention_pool/attention/maps"


def gradient_attention(inside: Inside, params, batch: Batch, target: jax.Array) -> jax.Array:
    """float32[n, L - prefix], not negative.

    Equations 5 and 6 of the paper: from `R = I`, block by block `R += mean over heads of max(gradient * map, 0) @ R`;
    of it the rows that the tower pools, without the identity it started from. The paper reads the row of the class
    token; a mean over tokens reads the mean of their rows, a learnt query its own weighted map (equation 10's form).
    """
    paths = map_paths(inside)
    wanted = {*paths, _POOL}
    seen, gradients = outputs_and_gradients(inside, params, batch, target, wanted.__contains__)
    weighted = {k: jnp.maximum(g * seen.outputs[k], 0).mean(axis=1) for k, g in gradients.items()}
    length = seen.features.tokens.shape[1]
    start = jnp.broadcast_to(jnp.eye(length)[None], (seen.pooled.shape[0], length, length))
    total = start
    for path in paths:
        total = total + weighted[path] @ total
    if _POOL in weighted:
        return of_patches(inside, seen, jnp.einsum("nq,nqk->nk", weighted[_POOL][:, 0], total))
    return of_patches(inside, seen, jnp.einsum("nq,nqk->nk", reading_rows(inside, seen), total - start))
