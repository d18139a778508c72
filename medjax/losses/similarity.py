"""Tile functions: the similarity of a block of queries with a block of keys, in float32.

A tile function is `tile(theta, queries, keys) -> float32[q, k]`: `theta` is a pytree of scalars shared by every pair
(the logit scale), `queries` and `keys` are pytrees of arrays whose first axis is the row.
"""

import jax
import jax.numpy as jnp


def product(x_qe: jax.Array, y_ke: jax.Array) -> jax.Array:
    """Inner products `[q, k]`, accumulated in float32.

    float32 inputs ask for full precision by name, since TPUs multiply float32 in bfloat16 otherwise and GPUs may use
    TF32. bfloat16 inputs are the fast path: their products are exact and only the sum is rounded.
    """
    exact = x_qe.dtype == jnp.float32 or y_ke.dtype == jnp.float32
    return jnp.einsum(
        "qe,ke->qk",
        x_qe,
        y_ke,
        precision=jax.lax.Precision.HIGHEST if exact else None,
        preferred_element_type=jnp.float32,
    )


def dot(theta: dict, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """`scale * <x_i, y_j>`, as in CLIP."""
    return theta["scale"] * product(queries, keys)


def affine(theta: dict, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """`scale * <x_i, y_j> + bias`, as in SigLIP."""
    return theta["scale"] * product(queries, keys) + theta["bias"]


def gram_volume(theta: dict, queries: dict, keys: dict) -> jax.Array:
    """`-scale * vol(a_i, M_j)`: the volume spanned by an anchor and the other modalities of a sample (GRAM).

    queries: `anchor` [q, E], `square` [q] = |a|^2. keys: `basis` [k, M-1, E] orthonormal rows (absent ones zero),
    `volume` [k], the volume of the other modalities alone. With `Q_j` the basis,
    `vol(i, j) = volume_j * sqrt(|a_i|^2 - |Q_j a_i|^2)`, the determinant of the Gram matrix without a determinant
    (arXiv 2412.11959, by Schur complement). `theta["eps"]` floors the square, whose root has no gradient at 0.
    """
    outside = queries["square"][:, None]
    for m in range(keys["basis"].shape[1]):  # one matrix [q, k] at a time, and none of them M-1 deep
        along = product(queries["anchor"], keys["basis"][:, m])
        outside = outside - along * along
    return -theta["scale"] * keys["volume"][None, :] * jnp.sqrt(jnp.maximum(outside, theta["eps"]))
