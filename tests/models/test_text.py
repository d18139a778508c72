"""The text encoder: padding, rows that do not matter, dropout by global row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models import make_tower
from medjax.models.partitioning import unbox

ROWS = jnp.arange(6)
SPEC = {"kind": "text", "vocab_size": 50}
SMALL = {"name": "bert", "width": 16, "depth": 2, "heads": 2, "positions": 24}
FLOAT32 = 1e-5  # activations of unit size through two blocks


def tower(**options):
    return make_tower("text", {**SMALL, **options}, SPEC)


def texts(rng, length=10, total=12):
    tokens = np.zeros((6, total), np.int32)
    lengths = rng.integers(2, length + 1, 6).astype(np.int32)
    for row, n in zip(tokens, lengths, strict=True):
        row[:n] = rng.integers(1, 50, n)
    return {"tokens": tokens, "lengths": lengths}


def parameters(module, value):
    return unbox(jax.jit(module.init)(jax.random.key(0), **value))


@pytest.mark.parametrize(
    ("name", "pool"), [("bert", "cls"), ("bert", "mean"), ("roberta", "max"), ("clip_text", "eos")]
)
def test_more_padding_gives_the_same_features(rng, name, pool):
    module, value = tower(name=name, pool=pool), texts(rng)
    longer = {**value, "tokens": np.pad(value["tokens"], [(0, 0), (0, 9)], constant_values=7)}
    params = parameters(module, value)
    short, long = (jax.jit(lambda v: module.apply(params, **v))(v) for v in (value, longer))
    np.testing.assert_allclose(short.pooled, long.pooled, atol=FLOAT32)
    np.testing.assert_array_equal(np.pad(short.token_mask, [(0, 0), (0, 9)]), long.token_mask)
    seen = np.asarray(short.token_mask)
    np.testing.assert_allclose(short.tokens[seen], long.tokens[:, :12][seen], atol=FLOAT32)


def test_mask_marks_the_real_tokens(rng):
    module, value = tower(), texts(rng)
    mask = module.apply(parameters(module, value), **value).token_mask
    np.testing.assert_array_equal(mask.sum(axis=1), value["lengths"])


def test_other_rows_do_not_matter_even_if_empty(rng):
    module, value = tower(), texts(rng)
    params = parameters(module, value)
    apply = jax.jit(lambda v: module.apply(params, **v).pooled)
    kept = np.array([True, True, False, True, False, True])
    other = {"tokens": np.where(kept[:, None], value["tokens"], 0), "lengths": np.where(kept, value["lengths"], 0)}
    before, after = apply(value), apply(other)
    np.testing.assert_allclose(before[kept], after[kept], atol=FLOAT32)
    assert np.isfinite(after).all()


def test_gradient_of_an_empty_text_is_finite(rng):
    module, value = tower(), texts(rng)
    value["lengths"][2] = 0
    params = parameters(module, value)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(module.apply(p, **value).pooled ** 2)))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_order_of_words_matters(rng):
    module, value = tower(), texts(rng)
    value["lengths"][:] = 12
    params = parameters(module, value)
    turned = {**value, "tokens": value["tokens"][:, ::-1]}
    pooled = [module.apply(params, **v).pooled for v in (value, turned)]
    assert np.abs(pooled[0] - pooled[1]).max() > 1e-2


def test_texts_longer_than_the_positions_are_refused(rng):
    module, value = tower(positions=11), texts(rng)
    with pytest.raises(UserError, match="12 tokens exceed the text tower's positions=11"):
        module.init(jax.random.key(0), **value)


def test_the_end_token_is_the_last_real_one(rng):
    module, value = tower(name="clip_text"), texts(rng)
    features = module.apply(parameters(module, value), **value)
    last = np.asarray(features.tokens)[np.arange(6), value["lengths"] - 1]
    np.testing.assert_array_equal(features.pooled, last)


def test_siglip_attends_to_padding(rng):
    module, value = tower(name="siglip_text"), texts(rng)
    features = module.apply(parameters(module, value), **value)
    assert features.token_mask.all() and features.pooled.shape == (6, 16)
    without = module.apply(parameters(module, value), value["tokens"])
    np.testing.assert_array_equal(features.pooled, without.pooled)


@pytest.mark.parametrize("pooler", ["linear", "tanh", "kept"])
def test_poolers(rng, pooler):
    module, value = tower(pooler=pooler), texts(rng)
    params = parameters(module, value)
    pooled, plain = (m.apply(params, **value).pooled for m in (module, tower()))
    layer = params["params"]["pooler"]
    changed = np.asarray(plain) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    want = {"linear": changed, "tanh": np.tanh(changed), "kept": plain}[pooler]
    np.testing.assert_allclose(pooled, want, atol=FLOAT32)
