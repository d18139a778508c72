"""Dropout by global row, and means under masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.layers import Dropout, masked_mean

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


def test_masked_mean_is_over_the_marked_tokens_only(rng):
    x = rng.normal(size=(3, 4, 2)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]], bool)
    expected = [x[0, :2].mean(axis=0), np.zeros(2), x[2, [1, 3]].mean(axis=0)]
    np.testing.assert_allclose(masked_mean(x, mask), expected, atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(masked_mean(x, mask) ** 2))(x)
    assert not np.any(np.asarray(gradient)[~mask])
