"""Tile functions between samples seen as sets of tokens, in float32, with steps of bounded memory.

A pair of samples has a small matrix of token similarities of its own. `each` walks a tile one key at a time (a few
where they are small) and recomputes the step in the backward pass, so a tile of q queries needs a few arrays
`[q, n]` rather than `[q, k, n]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from medjax.losses.similarity import product

_LOWEST = -1e30  # a finite stand-in for -inf
_STEP = 2**22  # numbers in the largest array of a step: 16 MiB


def each(function: Callable, keys, numbers: int) -> jax.Array:
    """`[k, ...]`: `function` of every key, in steps of several keys where they need few `numbers` each."""
    k = jax.tree.leaves(keys)[0].shape[0]
    most = max(1, _STEP // max(1, numbers))
    # A divisor, since a shorter last step would be compiled a second time.
    step = max(n for n in range(1, k + 1) if k % n == 0 and n <= most) if k else 1
    return jax.lax.map(jax.checkpoint(function), keys, batch_size=step)


def masked_softmax(scores: jax.Array, mask: jax.Array, axis: int) -> jax.Array:
    """Softmax over the marked entries along an axis; zeros where there are none."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(mask, scores, _LOWEST), axis=axis, keepdims=True))
    power = jnp.where(mask, jnp.exp(jnp.where(mask, scores - top, 0.0)), 0.0)
    total = jnp.sum(power, axis=axis, keepdims=True)
    return power / jnp.where(total > 0, total, 1.0)


def masked_log_sum(scores: jax.Array, mask: jax.Array, axis: int) -> jax.Array:
    """Log-sum-exp over the marked entries along an axis; 0 where there are none."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(mask, scores, _LOWEST), axis=axis, keepdims=True))
    total = jnp.sum(jnp.where(mask, jnp.exp(jnp.where(mask, scores - top, 0.0)), 0.0), axis=axis)
    some = total > 0
    return jnp.where(some, jnp.log(jnp.where(some, total, 1.0)) + jnp.squeeze(top, axis), 0.0)


def unit(x: jax.Array) -> jax.Array:
    """float32 vectors scaled to length one along the last axis; a zero vector stays zero, without a gradient."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return jnp.where(square > 0, x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def vl_cabs(theta: dict, queries: jax.Array, keys: dict) -> jax.Array:
    """`scale * cos(t_i, a_ij)`, a_ij the patches of image j as sentence i attends to them (RadZero, arXiv 2504.07416).

    queries: sentences `[q, E]`. keys: `tokens` [k, L, E], `mask` bool[k, L]. The attention is
    `softmax_p(theta["attention"] * <t_i, v_jp>)`.
    """
    sentences = unit(queries)

    def column(key):
        patches, mask = key["tokens"], key["mask"]
        attention = masked_softmax(theta["attention"] * product(queries, patches), mask[None], 1)
        seen = product(attention.astype(patches.dtype), patches.T)
        return theta["scale"] * jnp.sum(sentences * unit(seen), axis=1)

    width = sum(keys["tokens"].shape[1:])
    return each(column, keys, queries.shape[0] * width).T


def best_patch(theta: dict, queries: jax.Array, keys: dict) -> jax.Array:
    """`max_p (scale * <c_i, v_jp> + bias)` over the patches of image j (ConceptCLIP, arXiv 2501.15579).

    queries: concepts `[q, E]`. keys: `tokens` [k, L, E], `mask` bool[k, L].
    """

    def column(key):
        logits = theta["scale"] * product(queries, key["tokens"]) + theta["bias"]
        best = jnp.argmax(jnp.where(key["mask"][None], logits, _LOWEST), axis=1)
        # By index: the gradient of max asks which logit equals it, and a compiler may round the two differently.
        chosen = best[:, None] == jnp.arange(logits.shape[1])[None]
        return jnp.sum(jnp.where(chosen, logits, 0.0), axis=1)

    return each(column, keys, queries.shape[0] * keys["tokens"].shape[1]).T


def all_patches(theta: dict, queries: jax.Array, keys: dict) -> jax.Array:
    """`log sum_p exp(scale * <c_i, v_jp>) + bias`: `best_patch` with a smooth maximum."""

    def column(key):
        return masked_log_sum(theta["scale"] * product(queries, key["tokens"]), key["mask"][None], 1) + theta["bias"]

    return each(column, keys, queries.shape[0] * keys["tokens"].shape[1]).T


def attended_words(theta: dict, queries: dict, keys: dict) -> jax.Array:
    """`scale * log sum_w exp(words * cos(w, c_w))`, c_w the patches of image i as word w of text j attends to them.

    GLoRIA (Huang et al., ICCV 2021, and marshuang80/gloria `gloria_loss.py`): the inner products of
    words and patches pass through a softmax over the words, times `theta["attention"]` through one over the patches.
    queries: images, keys: texts, each `tokens` [n, L, E], `mask` bool[n, L].
    """
    patches, patch_mask = queries["tokens"], queries["mask"]

    def column(key):
        words, mask = key["tokens"], key["mask"]
        flat = product(patches.reshape(-1, patches.shape[-1]), words)
        over_words = masked_softmax(flat.reshape(*patch_mask.shape, -1), mask[None, None], 2)
        over_patches = masked_softmax(theta["attention"] * over_words, patch_mask[..., None], 1)
        seen = jnp.einsum(
            "qlw,qle->qwe",
            over_patches.astype(patches.dtype),
            patches,
            precision=jax.lax.Precision.HIGHEST if patches.dtype == jnp.float32 else None,
            preferred_element_type=jnp.float32,
        )
        cosine = jnp.sum(unit(words)[None] * unit(seen), axis=2)
        return theta["scale"] * masked_log_sum(theta["words"] * cosine, mask[None], 1)

    q, length, width = patches.shape
    return each(column, keys, q * keys["tokens"].shape[1] * max(length, width)).T
