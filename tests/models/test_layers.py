"""Dropout by global row, norms in float32, means under masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.layers import Blocks, Dropout, masked_mean
from medjax.models.partitioning import unbox

KEY = jax.random.key(4)


def drop(x, rows, rate=0.4, train=True):
    return Dropout(rate).apply({}, x, jnp.asarray(rows), train, rngs={"dropout": KEY})


def test_dropout_of_a_batch_is_that_of_its_parts():
    x = np.ones((8, 5, 3), np.float32)
    rows = np.arange(8)
    whole = drop(x, rows)
    parts = [drop(x[i : i + 2], rows[i : i + 2]) for i in (0, 2, 4, 6)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    order = np.array([3, 1, 0, 2, 7, 6, 5, 4])
    np.testing.assert_array_equal(drop(x[order], rows[order]), whole[order])


def test_dropout_differs_from_row_to_row():
    out = np.asarray(drop(np.ones((8, 64), np.float32), np.arange(8)))
    assert len(np.unique(out, axis=0)) == 8


def test_dropout_keeps_its_share_and_the_mean():
    out = np.asarray(drop(np.ones((8, 4000), np.float32), np.arange(8)))
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.6], rtol=1e-6)
    assert abs(np.mean(out > 0) - 0.6) < 5 * np.sqrt(0.24 / out.size)


@pytest.mark.parametrize(("rate", "train"), [(0.4, False), (0.0, True)])
def test_dropout_is_the_identity_where_it_is_off(rate, train):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(drop(x, np.arange(3), rate, train), x)


def blocks(rng, **options):
    module = Blocks(2, 2, **options)
    x = rng.normal(size=(6, 5, 8)).astype(np.float32)
    rows = jnp.arange(6)
    params = unbox(module.init(jax.random.key(0), x, None, rows, False))
    return jax.jit(lambda x, rows: module.apply(params, x, None, rows, True, rngs={"dropout": KEY})), x, rows


def test_micro_batches_through_blocks_equal_the_whole_batch(rng):
    apply, x, rows = blocks(rng, dropout=0.3)
    parts = [apply(x[i : i + 3], rows[i : i + 3]) for i in (0, 3)]
    np.testing.assert_allclose(np.concatenate(parts), apply(x, rows), atol=1e-5)
    assert np.abs(apply(x, rows) - apply(x, rows + 6)).max() > 1e-2


@pytest.mark.parametrize("norm_first", [True, False])
def test_norms_run_in_float32_in_a_bfloat16_stack(rng, norm_first):
    """A large common offset would drown the differences in bfloat16, were the norm to subtract it there."""
    module = Blocks(1, 2, norm_first=norm_first, dtype=jnp.bfloat16)
    x = jnp.zeros((2, 5, 8), jnp.bfloat16)
    rows = jnp.arange(2)
    params = module.init(jax.random.key(0), x, None, rows, False)
    text = str(jax.make_jaxpr(lambda x: module.apply(params, x, None, rows, False))(x))
    roots = [line for line in text.splitlines() if " rsqrt" in line]
    assert len(roots) == 2
    assert all(":f32[" in line for line in roots)


def test_masked_mean_is_over_the_marked_tokens_only(rng):
    x = rng.normal(size=(3, 4, 2)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]], bool)
    expected = [x[0, :2].mean(axis=0), np.zeros(2), x[2, [1, 3]].mean(axis=0)]
    np.testing.assert_allclose(masked_mean(x, mask), expected, atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(masked_mean(x, mask) ** 2))(x)
    assert not np.any(np.asarray(gradient)[~mask])
