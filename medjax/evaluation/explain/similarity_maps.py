"""Similarity of every token to a target: what RadZero and BioViL show beside a prompt."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from medjax.data.batch import Batch
from medjax.errors import UserError
from medjax.evaluation.explain.inside import Inside, look

_OWN = "projected by the token head that an objective trained"
_SHARED = "projected by the head of the pooled embedding, which saw pooled features only in training"


def token_space(inside: Inside, params) -> str:
    """How tokens come into the joint space, in words for a result."""
    return _OWN if inside.modality in params[0].get("token_heads", {}) else _SHARED


def similarity_map(inside: Inside, params, batch: Batch, target: jax.Array) -> jax.Array:
    """float32[n, L - prefix]: `t . target` of every token's projection t of unit length; a cosine where the target has
    unit length, a difference of cosines where it is that of two prompts. NaN where there is no token.

    Where the method projects tokens itself, those; else the tower's pooled features are replaced by each token in turn,
    so that it takes the way of the pooled features through the same head.

    Raises:
      UserError: tokens and pooled features of the tower have different widths.
    """
    seen = look(inside, params, batch)
    if inside.modality in params[0].get("token_heads", {}):
        tokens = seen.encoded.tokens[inside.modality][:, 0]
    else:
        tokens = _projected(inside, params, batch, seen.features)
    cosines = jnp.einsum("nle,ne->nl", tokens / (jnp.linalg.norm(tokens, axis=-1, keepdims=True) + 1e-12), target)
    return jnp.where(seen.features.patch_mask, cosines, jnp.nan)


def _projected(inside: Inside, params, batch: Batch, features) -> jax.Array:
    """float32[n, L - prefix, E]"""
    widths = features.pooled.shape[-1], features.tokens.shape[-1]
    if widths[0] != widths[1]:
        raise UserError(
            f"{inside.modality} pools features of width {widths[0]} from tokens of width {widths[1]}, so that its head "
            "cannot take tokens; use --method=gradient_attention"
        )

    def one(token):
        def put(path, output):
            return replace(output, pooled=token) if path == "" and hasattr(output, "tokens") else output

        return look(inside, params, batch, put).pooled

    return jax.vmap(one, in_axes=1, out_axes=1)(features.patches)


def smoothed(map_: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of `sigma` patches over a grid of patches (BioViL's released code: 1.5), of what is not NaN."""
    from scipy.ndimage import gaussian_filter

    known = np.isfinite(map_)
    weight = gaussian_filter(known.astype(np.float64), sigma, mode="nearest")
    total = gaussian_filter(np.where(known, map_, 0.0).astype(np.float64), sigma, mode="nearest")
    return np.where(known, total / np.maximum(weight, 1e-12), np.nan).astype(np.float32)
