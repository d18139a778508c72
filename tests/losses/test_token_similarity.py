"""Tiles between samples seen as sets of tokens: any steps give one value, and the memory is bounded."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_check import AXES
from losses_reference import assert_close

from medjax import losses
from medjax.losses import Tokens, token_similarity
from medjax.losses.token_similarity import attended_words, best_patch, masked_softmax, unit, vl_cabs
from medjax.sharding import MeshConfig, make_mesh


def operands(rng, q, k, length):
    """Sentences or images as queries, samples of tokens as keys, with masks."""

    def samples(n):
        mask = rng.random((n, length)) < 0.6
        return {"tokens": jnp.asarray(rng.normal(size=(n, length, 4)), jnp.float32), "mask": jnp.asarray(mask)}

    theta = {k: jnp.float32(2.0) for k in ("scale", "bias", "attention", "words")}
    return theta, samples(q), samples(k)


def grid(tile, theta, queries, keys):
    """Value and gradient of a weighted sum of a tile's entries."""
    q = queries if tile is attended_words else queries["tokens"][:, 0]
    weight = jnp.cos(jnp.arange(keys["mask"].shape[0], dtype=jnp.float32))[None]

    def call(q, keys):
        return jnp.sum(jnp.where(keys["mask"].any(1)[None], tile(theta, q, keys), 0.0) * weight)

    return jax.value_and_grad(call, argnums=(0, 1), allow_int=True)(q, keys)


@pytest.mark.parametrize("tile", [attended_words, best_patch, vl_cabs])
def test_steps_of_any_size_give_one_value_and_gradient(rng, monkeypatch, tile):
    arguments = operands(rng, 5, 6, 3)
    results = []
    for step in (1, 10**9):  # one key at a time, all keys at once
        monkeypatch.setattr(token_similarity, "_STEP", step)
        value, gradient = jax.jit(partial(grid, tile))(*arguments)
        results.append((value, [g for g in jax.tree.leaves(gradient) if g.dtype == jnp.float32]))
    assert_close(*results, 1e-6)
    assert any(np.any(g) for g in results[0][1])


@pytest.mark.parametrize("tile", [attended_words, best_patch, vl_cabs])
def test_a_tile_stores_no_matrix_for_every_pair(rng, monkeypatch, tile):
    q, k, length = 64, 64, 16
    monkeypatch.setattr(token_similarity, "_STEP", 1)
    shapes = jax.eval_shape(lambda: operands(rng, q, k, length))
    compiled = jax.jit(partial(grid, tile)).lower(*shapes).compile()
    every_pair = 4 * q * k * length * (length if tile is attended_words else 1)
    assert compiled.memory_analysis().temp_size_in_bytes < every_pair


def test_a_zero_vector_has_no_direction_and_no_gradient():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit(x), [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)
    assert not np.any(jax.grad(lambda x: jnp.sum(unit(x) * 2.0))(x)[1])


def test_softmax_over_nothing_is_zero_with_a_finite_gradient():
    scores, mask = jnp.array([[1.0, 200.0], [5.0, 6.0]]), jnp.array([[True, False], [False, False]])
    np.testing.assert_array_equal(masked_softmax(scores, mask, 1), [[1.0, 0.0], [0.0, 0.0]])
    assert np.isfinite(jax.grad(lambda s: jnp.sum(masked_softmax(s, mask, 1) ** 2))(scores)).all()


@pytest.mark.parametrize(("name", "options"), [("gloria_local", {}), ("mp_nce", {"same_sentence": "mask"})])
def test_ring_memory_per_device_does_not_grow_with_devices(name, options):
    def temporary_bytes(devices):
        mesh = make_mesh(MeshConfig(replica=1), jax.devices()[:devices])
        rows, objective = jax.NamedSharding(mesh, jax.P(AXES)), losses.get(name, impl="ring", block=8, **options)

        def call(z):
            return objective(z, logit_scale=5.0, batch_axes=AXES).mean()

        with jax.set_mesh(mesh):
            shapes = jax.eval_shape(lambda: _tokens(16 * devices))
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), shapes)
            compiled = jax.jit(jax.grad(call, allow_int=True)).lower(shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) < 1.1 * temporary_bytes(2)


def _tokens(rows):
    sizes = {"image": 9, "text": 4}
    return {
        m: Tokens(jnp.zeros((rows, n, 8)), jnp.ones((rows, n), bool), group=jnp.zeros((rows, n, 2), jnp.uint32))
        for m, n in sizes.items()
    }
