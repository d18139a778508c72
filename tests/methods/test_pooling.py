"""Pooling of items and modality dropout inside contrastive pre-training."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from methods_batch import SPECS, complete, cut, make_batch

from medjax.errors import UserError
from medjax.methods import make_method

TOWER = {"name": "mlp", "hidden": (8,)}
SPECS = {"blood": SPECS["labs"], "urine": SPECS["labs"]}
OPTIONS = {
    "name": "contrastive",
    "towers": {"blood": TOWER, "urine": TOWER},
    "embed_dim": 6,
    "objectives": {"info_nce": {}},
    "pooling": {"blood": {"name": "attention", "heads": 2}, "urine": {"name": "gated", "hidden": 4}},
    "modality_dropout": 0.5,
    "head": {"centre": True},
}
KEY = jax.random.key(5)


def batch_of(rng, rows=8):
    batch = make_batch(rng, rows, 3, ())
    items = {m: make_batch(rng, rows, 3, ("labs",)).items["labs"] for m in SPECS}
    items["blood"].mask[1] = items["urine"].mask[2] = False
    return replace(batch, items=items)


@pytest.fixture
def batch(rng):
    return batch_of(rng)


@functools.cache
def compiled():
    """(method, parameters away from their start, encode, value and gradient of a step)."""
    method = make_method(OPTIONS, SPECS)
    params, state = jax.jit(method.init)(jax.random.key(0), batch_of(np.random.default_rng(1)))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), params)
    encode = jax.jit(lambda b, train: method.encode(params, state, b, KEY, train), static_argnums=1)

    def loss(p, b):
        return method.objective(method.encode(p, state, b, KEY, True), p, state, b, KEY)[0].mean()

    return method, params, encode, jax.jit(jax.value_and_grad(loss))


def test_pooled_studies_ignore_masked_items_and_absent_ones_are_zero(batch):
    *_, encode, _ = compiled()
    want = encode(batch, False)

    def blank(items):
        value = jax.tree.map(lambda v: np.where(items.mask[..., None], v, 1).astype(v.dtype), items.value)
        return replace(items, value=value)

    got = encode(replace(batch, items={m: blank(x) for m, x in batch.items.items()}), False)
    for m, x in batch.items.items():
        there = x.mask.any(axis=1)
        assert not there.all()
        np.testing.assert_allclose(got.pooled[m], want.pooled[m], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(want.pooled[m], axis=1), there, atol=1e-5)


def test_pools_are_trained_and_differ_from_the_mean(batch):
    _, params, encode, step = compiled()
    assert set(params["pooling"]) == {"blood", "urine"}
    _, gradient = step(params, complete(batch))
    for m in ("blood", "urine"):
        assert any(np.any(g) for g in jax.tree.leaves(gradient["pooling"][m]))
    mean = make_method({**OPTIONS, "pooling": {"urine": {"name": "mean"}}}, SPECS)
    assert "pooling" not in jax.eval_shape(mean.init, jax.random.key(0), batch)[0]
    pooled = jax.jit(lambda b: mean.encode(params, {}, b, None, False))(complete(batch)).pooled
    want = encode(complete(batch), False).pooled
    assert all(np.abs(pooled[m] - want[m]).max() > 1e-3 for m in pooled)


def test_hidden_modalities_count_as_absent_in_training_only(batch):
    *_, encode, _ = compiled()
    full = complete(batch)
    calm, trained = encode(full, False), encode(full, True)
    assert all(np.all(p) for p in calm.present.values())
    present = np.stack([trained.present[m] for m in full.items])
    assert present.any(axis=0).all() and not present.all()
    for m in full.items:
        np.testing.assert_array_equal(np.any(trained.pooled[m], axis=1), trained.present[m])
        np.testing.assert_array_equal(trained.item_mask[m].all(axis=1), trained.present[m])
        kept = np.asarray(trained.present[m])
        np.testing.assert_allclose(trained.pooled[m][kept], calm.pooled[m][kept], atol=1e-6)


def test_micro_batches_hide_what_the_whole_batch_hides(batch):
    *_, encode, _ = compiled()
    whole = encode(batch, True)
    parts = [encode(cut(batch, i, i + 4), True) for i in (0, 4)]
    jax.tree.map(lambda w, *p: np.testing.assert_allclose(np.concatenate(p), w, atol=1e-6), whole, *parts)


def test_logical_axes_match_the_parameters(batch):
    method, params, *_ = compiled()
    specs = method.logical_axes(batch)
    assert jax.tree.structure(specs, is_leaf=lambda x: isinstance(x, jax.P)) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pooling": {"bood": {"name": "gated"}}}, "config.method.pooling.bood: no tower encodes 'bood'; did you mean"),
        ({"pooling": {"blood": {"name": "gatd"}}}, "config.method.pooling.blood.name is 'gatd'; did you mean 'gated'"),
        ({"modality_dropout": 1.0}, r"config.method.modality_dropout=1.0 must be in \[0, 1\)"),
    ],
)
def test_wrong_configurations_are_named(change, named):
    with pytest.raises(UserError, match=named):
        make_method({**OPTIONS, **change}, SPECS)
