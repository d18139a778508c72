"""Batches of images as patches and of texts as sentences, with padding and absent samples, and sums over them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from medjax import losses
from medjax.losses import Tokens


def unit(x: np.ndarray) -> np.ndarray:
    """Scaled to length one along the last axis."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def token_batch(rng, rows=8, patches=3, sentences=2, width=3, masked=True, **text) -> tuple[dict, dict]:
    """`({"image": Tokens, "text": Tokens}, present)`; sample 1 has no image, 2 no real sentence, 3 no text."""
    embeddings = {}
    for m, n in (("image", patches), ("text", sentences)):
        mask = rng.random((rows, n)) < 0.7 if masked else np.ones((rows, n), bool)
        mask[:, 0] = True
        if masked and m == "text":
            mask[2] = False
        tokens = unit(rng.normal(size=(rows, n, width))).astype(np.float32)
        embeddings[m] = Tokens(tokens, mask, **(text if m == "text" else {}))
    present = {m: np.ones(rows, bool) for m in embeddings}
    if masked:
        present["image"][1] = present["text"][3] = False
    return embeddings, present


def present_samples(embeddings: dict, present: dict) -> dict[str, np.ndarray]:
    """bool[b] for each modality: present, with a real token."""
    return {m: present[m] & np.asarray(x.mask).any(1) for m, x in embeddings.items()}


def log_sum(x, **axis) -> np.ndarray:
    """Log-sum-exp in float64; minus infinity where there is nothing."""
    return np.logaddexp.reduce(x, **axis) if np.size(x) else np.float64(-np.inf)


def padded(embeddings: dict, extra: int, rng) -> dict:
    """The same samples with `extra` more tokens that are not real and hold anything."""

    def longer(x: Tokens) -> Tokens:
        b, _, width = x.tokens.shape
        noise = rng.normal(size=(b, extra, width)).astype(np.float32)
        tokens, mask = np.concatenate([x.tokens, noise], 1), np.concatenate([x.mask, np.zeros((b, extra), bool)], 1)
        more = {}
        if x.weight is not None:
            more["weight"] = np.concatenate([x.weight, rng.random((b, extra)).astype(np.float32)], 1)
        if x.group is not None:
            more["group"] = np.concatenate([x.group, rng.integers(1, 9, (b, extra, 2)).astype(np.uint32)], 1)
        return x._replace(tokens=tokens, mask=mask, **more)

    return {m: longer(x) for m, x in embeddings.items()}


@functools.cache
def _compiled(name: str, options: tuple):
    objective = losses.get(name, **dict(options))

    def call(embeddings, batch):
        return objective(embeddings, **batch).mean()

    return jax.jit(jax.value_and_grad(call, allow_int=True))


def value_and_gradient(name: str, embeddings: dict, logit_scale: float, options=None, **batch):
    """`(value, gradient)` on one device; the gradient of what is no float is None."""
    embeddings, batch = jax.tree.map(jnp.asarray, (embeddings, {"logit_scale": logit_scale, **batch}))
    value, gradient = _compiled(name, tuple((options or {}).items()))(embeddings, batch)
    return float(value), jax.tree.map(lambda g: None if g.dtype == jax.dtypes.float0 else np.asarray(g), gradient)


def check_edges(name: str, embeddings: dict, present: dict, rng, options=None, **batch) -> None:
    """Padding and order of tokens change nothing, nothing present gives zero, and whatever the tokens all is finite."""
    value, gradient = value_and_gradient(name, embeddings, 5.0, options, present=present, **batch)
    longer = padded(embeddings, 2, rng)
    longer_value, longer_gradient = value_and_gradient(name, longer, 5.0, options, present=present, **batch)
    assert value != 0.0
    np.testing.assert_allclose(longer_value, value, rtol=2e-6)  # float32 sums of other lengths
    for m, x in embeddings.items():
        n = x.tokens.shape[1]
        np.testing.assert_allclose(longer_gradient[m].tokens[:, :n], gradient[m].tokens, atol=1e-5)
        assert not longer_gradient[m].tokens[:, n:].any()
        assert not gradient[m].tokens[~np.asarray(x.mask)].any()
    order = rng.permutation(len(next(iter(present.values()))))
    turned = {
        m: jax.tree.map(lambda x: x[:, ::-1] if x.ndim > 1 else x, x._replace(pooled=None))
        for m, x in embeddings.items()
    }
    turned = {m: x._replace(pooled=embeddings[m].pooled) for m, x in turned.items()}
    turned, here, again = jax.tree.map(lambda x: x[order] if np.ndim(x) else x, (turned, present, batch))
    np.testing.assert_allclose(
        value_and_gradient(name, turned, 5.0, options, present=here, **again)[0], value, rtol=5e-6
    )
    whole = {m: np.ones_like(p) for m, p in present.items()}
    for change in (np.zeros_like, np.ones_like, lambda x: 1e3 * x):
        extreme = {m: x._replace(tokens=change(x.tokens)) for m, x in embeddings.items()}
        for leaf in jax.tree.leaves(value_and_gradient(name, extreme, 5.0, options, present=whole, **batch)):
            assert np.isfinite(leaf).all()
    nobody = {m: np.zeros_like(p) for m, p in present.items()}
    no_tokens = {m: x._replace(mask=np.zeros_like(x.mask)) for m, x in embeddings.items()}
    for empty, here in ((embeddings, nobody), (no_tokens, present)):
        value, gradient = value_and_gradient(name, empty, 5.0, options, present=here, **batch)
        assert value == 0.0
        assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def check_half_precision(name: str, embeddings: dict, options=None, **batch) -> None:
    """bfloat16 inputs give the loss of their float32 copies, up to attention weights rounded to bfloat16."""

    def cast(tree, old, new):
        return jax.tree.map(lambda x: jnp.asarray(x, new) if x.dtype == old else jnp.asarray(x), tree)

    half = cast(embeddings, np.float32, jnp.bfloat16)
    value, gradient = value_and_gradient(name, half, 5.0, options, **batch)
    expected, _ = value_and_gradient(name, cast(half, jnp.bfloat16, jnp.float32), 5.0, options, **batch)
    np.testing.assert_allclose(value, expected, rtol=2e-2)
    assert all(np.isfinite(g.astype(np.float32)).all() for g in jax.tree.leaves(gradient))
