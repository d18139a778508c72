"""What masked autoencoders minimise: the error of hidden patches (MAE, arXiv 2111.06377, section 3).

Shapes: n rows, L patches, P values of a patch.
"""

import jax
import jax.numpy as jnp

_FLOOR = 1e-6  # under the variance of a flat patch, as in the released code


def normalised_patches(patches_nlp: jax.Array) -> jax.Array:
    """float32[n, L, P]: every patch less its mean, by its spread (the paper's "per-patch normalization").

    The variance divides by P, as the paper's statistics of a patch do; the released code divides by P - 1.
    """
    x = patches_nlp.astype(jnp.float32)
    return (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True) + _FLOOR)


def hidden_patch_error(predicted_nlp: jax.Array, target_nlp: jax.Array, hidden_nl: jax.Array) -> jax.Array:
    """float32[n]: of each row the mean over its hidden patches of the mean squared error of their values; 0 for a row
    that hides none.

    predicted, target: float[n, L, P]; those of other patches have no influence. hidden: bool[n, L].
    """
    difference = predicted_nlp.astype(jnp.float32) - target_nlp.astype(jnp.float32)
    error = jnp.where(hidden_nl, jnp.mean(difference**2, axis=-1), 0.0)
    return jnp.sum(error, axis=1) / jnp.maximum(hidden_nl.sum(axis=1), 1)
