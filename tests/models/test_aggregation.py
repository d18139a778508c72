"""Pooling of a study's items: masked ones do not exist, order does not count, and nothing is made of nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models.aggregation import AttentionPool, GatedAttentionPool, Pool, PoolConfig, masked_softmax
from medjax.models.partitioning import unbox

FLOAT32 = 1e-5
NAMES = ("attention", "gated", "mean")
MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)


@functools.cache
def compiled(name):
    """(parameters, away from their start; pooled and gradients by parameters and items)."""
    pool, keys = Pool(PoolConfig(name, heads=2, hidden=5)), jax.random.split(jax.random.key(0))
    params = unbox(jax.jit(pool.init)(keys[0], jnp.zeros((4, 4, 8)), MASK)).get("params", {})
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(keys[1], p.shape), params)

    @jax.jit
    def run(x, mask):
        def loss(params, x):
            pooled = pool.apply({"params": params}, x, mask)
            return jnp.sum(jnp.sin(pooled)), pooled

        (_, pooled), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        return pooled, *gradients

    return params, run


@pytest.fixture
def items(rng):
    return rng.normal(size=(4, 4, 8)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("filling", [1e6, np.nan])
def test_masked_items_have_no_influence_and_no_gradient(name, filling, items):
    _, run = compiled(name)
    want = run(items, MASK)
    got = run(np.where(MASK[..., None], items, np.float32(filling)), MASK)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    for leaf in jax.tree.leaves(want):
        assert np.isfinite(leaf).all()
    assert not np.any(want[2][~MASK])
    assert np.all(np.any(np.asarray(want[2])[MASK] != 0, axis=-1))


@pytest.mark.parametrize("name", NAMES)
def test_a_study_without_items_is_zero(name, items):
    _, run = compiled(name)
    pooled, by_params, by_items = run(items, np.zeros_like(MASK))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((pooled, by_params, by_items)))
    assert not np.any(run(items, MASK)[0][3])


@pytest.mark.parametrize("name", NAMES)
def test_the_order_and_the_padding_of_items_do_not_matter(name, items, rng):
    _, run = compiled(name)
    order = np.stack([rng.permutation(4) for _ in range(4)])
    mixed = np.take_along_axis(items, order[..., None], 1), np.take_along_axis(MASK, order, 1)
    np.testing.assert_allclose(run(*mixed)[0], run(items, MASK)[0], atol=FLOAT32)
    padded = np.pad(items, ((0, 0), (0, 3), (0, 0)), constant_values=7.0), np.pad(MASK, ((0, 0), (0, 3)))
    np.testing.assert_allclose(run(*padded)[0], run(items, MASK)[0], atol=FLOAT32)


def test_pools_differ_from_the_mean_and_every_parameter_takes_part(items):
    mean = compiled("mean")[1](items, MASK)[0]
    for name in ("attention", "gated"):
        pooled, gradient, _ = compiled(name)[1](items, MASK)
        assert np.abs(pooled - mean)[:2].max() > 1e-2
        zero = [jax.tree_util.keystr(p) for p, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.any(g)]
        assert not zero


def test_a_fresh_attention_pool_is_the_mean(items):
    pool = AttentionPool(2)
    params = jax.jit(pool.init)(jax.random.key(0), items, MASK)
    mean = compiled("mean")[1](items, MASK)[0]
    np.testing.assert_allclose(pool.apply(params, items, MASK), mean, atol=FLOAT32)


def test_embeddings_of_views_tell_items_apart_and_may_be_unknown(items):
    pool, views = AttentionPool(2, views=3), np.array([[0, 1, 2, 0]] * 4)
    params = unbox(jax.jit(pool.init)(jax.random.key(0), items, MASK))
    apply = jax.jit(lambda views: pool.apply(params, items, MASK, views))
    without = pool.apply(params, items, MASK)
    np.testing.assert_allclose(apply(np.full((4, 4), -1)), without, atol=FLOAT32)
    assert np.abs(apply(views) - without)[:3].max() > 1e-3
    assert not np.any(apply(views)[3])
    # The mean of the items and of their views' embeddings, as the fresh attention adds nothing.
    table = np.asarray(params["params"]["views"])
    np.testing.assert_allclose(apply(views)[1], without[1] + table[[0, 2]].mean(0), atol=FLOAT32)


def test_gated_attention_is_the_papers_formula(items):
    pool = GatedAttentionPool(5)
    params = unbox(jax.jit(pool.init)(jax.random.key(0), items, MASK))
    pooled, weights = pool.apply(params, items, MASK)
    v, u, w = (np.asarray(params["params"][k]["kernel"], np.float64) for k in ("tanh", "gate", "weight"))
    for bag, mask, z, a in zip(items, MASK, pooled, weights, strict=True):
        h = bag[mask].astype(np.float64)
        logits = (np.tanh(h @ v) * (1 / (1 + np.exp(-h @ u)))) @ w
        want = np.exp(logits[:, 0]) / np.exp(logits).sum() if len(h) else np.zeros(0)
        np.testing.assert_allclose(a[mask], want, atol=FLOAT32)
        np.testing.assert_allclose(z, want @ h, atol=FLOAT32)
        assert not np.any(a[~mask])


def test_weights_of_a_gated_pool_can_be_asked_for(items):
    pool = Pool(PoolConfig("gated"))
    params = {"params": unbox(jax.jit(pool.init)(jax.random.key(0), items, MASK))["params"]}
    _, found = pool.apply(params, items, MASK, mutable=["intermediates"])
    (weights,) = found["intermediates"]["weights"]
    np.testing.assert_allclose(weights.sum(1), MASK.any(1), atol=FLOAT32)


def test_masked_softmax_of_huge_logits():
    logits = jnp.array([[1e4, 1e4, -1e4], [-1e30, 3.0, 3.0]])
    mask = np.array([[True, True, True], [True, False, False]])
    np.testing.assert_allclose(masked_softmax(logits, mask), [[0.5, 0.5, 0], [1, 0, 0]])
    gradient = jax.jacobian(lambda x: masked_softmax(x, mask))(logits)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[0, 0, 0], [0.25, -0.25, 0], atol=FLOAT32)


def test_heads_that_do_not_divide_the_width_are_refused(items):
    with pytest.raises(UserError, match="width=8 must divide by its heads=3"):
        AttentionPool(3).init(jax.random.key(0), items, MASK)
