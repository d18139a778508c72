"""Projections to the shared space."""

import jax
import jax.numpy as jnp
import numpy as np

from medjax.models.heads import Head, HeadConfig, unit
from medjax.models.partitioning import unbox


def test_unit_vectors_have_length_one_and_zero_stays_zero(rng):
    x = rng.normal(size=(5, 7)).astype(np.float32) * np.array([1e-3, 1.0, 1e3, 10.0, 0.0], np.float32)[:, None]
    np.testing.assert_allclose(np.linalg.norm(unit(x), axis=1), [1, 1, 1, 1, 0], rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(unit(x) ** 3))(x)
    assert np.isfinite(gradient).all()


def test_unit_vectors_of_bfloat16_are_float32():
    assert unit(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32


def test_linear_head_is_linear_and_a_hidden_layer_is_not(rng):
    x = rng.normal(size=(4, 6)).astype(np.float32)
    for hidden in (0, 12):
        head = Head(HeadConfig(hidden=hidden), 5)
        params = unbox(head.init(jax.random.key(0), x))
        once, twice = head.apply(params, x), head.apply(params, 2 * x)
        assert once.shape == (4, 5)
        assert np.allclose(twice, 2 * once, atol=1e-5) == (hidden == 0)
