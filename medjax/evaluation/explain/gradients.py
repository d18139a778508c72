"""Explanations that need no attention: Grad-CAM of residual networks, integrated gradients of any encoder."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from medjax.data.batch import Batch
from medjax.evaluation.explain.inside import Inside, look, outputs_and_gradients

STEPS = 32
_WORDS = "words"


def grad_cam(inside: Inside, params, batch: Batch, target: jax.Array) -> jax.Array:
    """float32[n, L], not negative, of the places of the last stage's maps.

    Equations 1 and 2 of arXiv 1610.02391: `max(sum_c a_c A_c, 0)` with `a_c` the mean over places of the score's
    gradient at channel c.
    """
    last = f"stage_{inside.stages - 1}"
    seen, gradients = outputs_and_gradients(inside, params, batch, target, last.__eq__)
    maps, gradient = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (seen.outputs[last], gradients[last]))
    weight = gradient.mean(axis=1).astype(jnp.float32)
    return jnp.maximum(jnp.einsum("nlc,nc->nl", maps.astype(jnp.float32), weight), 0)


def integrated_gradients(inside: Inside, params, batch: Batch, target: jax.Array) -> jax.Array:
    """float32 of the input's own shape, without channels of a picture or volume; of texts [n, L]. Signed.

    Equation 1 of arXiv 1703.01365, by the middles of `STEPS` steps from an input of zeros: the mean gray of the
    training pictures, a flat ECG, mean lab values, words without meaning. The sum is the score's rise over that input.
    """
    items = batch.items[inside.modality]
    if "tokens" in (items.value if isinstance(items.value, dict) else {}):
        return _of_words(inside, params, batch, target)
    nested = isinstance(items.value, dict)
    value = items.value["value"] if nested else items.value

    def score(x):
        given = {**items.value, "value": x} if nested else x
        shown = replace(batch, items={inside.modality: replace(items, value=given)})
        return jnp.sum(look(inside, params, shown).pooled * target)

    mean = _mean_gradient(lambda share: jax.grad(score)(share * value))
    out = (mean * value)[:, 0]
    return out.sum(axis=-1) if out.ndim >= 4 else out


def _of_words(inside: Inside, params, batch: Batch, target: jax.Array) -> jax.Array:
    seen = look(inside, params, batch)
    words = seen.outputs[_WORDS]

    def score(x):
        return jnp.sum(look(inside, params, batch, lambda path, y: x if path == _WORDS else y).pooled * target)

    mean = _mean_gradient(lambda share: jax.grad(score)(share * words))
    return jnp.where(seen.features.token_mask, (mean * words).sum(axis=-1), jnp.nan)


def _mean_gradient(gradient_at) -> jax.Array:
    shares = (jnp.arange(STEPS) + 0.5) / STEPS
    shape = jax.eval_shape(gradient_at, shares[0])
    total = jax.lax.fori_loop(0, STEPS, lambda i, sum_: sum_ + gradient_at(shares[i]), jnp.zeros(shape.shape))
    return total / STEPS
