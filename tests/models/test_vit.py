"""Vision transformers of pictures and ECGs: patches, visible subsets, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models import make_tower
from medjax.models.partitioning import unbox
from medjax.models.vit import ecg_patches, image_patches

ROWS = jnp.arange(4)
SMALL = {"width": 16, "depth": 2, "heads": 2, "patch": 4}
FLOAT32 = 1e-5  # activations of unit size through two blocks


def make(kind, **options):
    name, modality = ("vit", "image") if kind == "image" else ("ecg_vit", "ecg")
    return make_tower(modality, {"name": name, **SMALL, **options}, {"kind": kind})


def value_of(rng, kind):
    shape = (4, 8, 12, 1) if kind == "image" else (4, 3, 20)
    return rng.normal(size=shape).astype(np.float32)


def parameters(module, value):
    return unbox(module.init(jax.random.key(0), value, ROWS, False))


def test_patches_of_pictures_hold_their_pixels(rng):
    x = rng.normal(size=(2, 8, 12, 3))
    patches = image_patches(x, 4)
    assert patches.shape == (2, 6, 48)
    for number, (row, column) in enumerate([(0, 0), (0, 4), (0, 8), (4, 0), (4, 4), (4, 8)]):
        np.testing.assert_array_equal(patches[:, number], x[:, row : row + 4, column : column + 4].reshape(2, 48))


def test_patches_of_ecgs_hold_all_leads_of_a_window(rng):
    x = rng.normal(size=(2, 3, 20))
    patches = ecg_patches(x, 4)
    assert patches.shape == (2, 5, 12)
    for window in range(5):
        np.testing.assert_array_equal(patches[:, window], x[:, :, 4 * window : 4 * window + 4].reshape(2, 12))


def test_sizes_that_do_not_divide_are_named():
    with pytest.raises(UserError, match="8x10 pixels does not divide into patches of 4"):
        image_patches(np.zeros((1, 8, 10, 1)), 4)
    with pytest.raises(UserError, match="18 samples does not divide into patches of 4"):
        ecg_patches(np.zeros((1, 3, 18)), 4)


@pytest.mark.parametrize("kind", ["image", "ecg"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_all_patches_visible_is_the_default(rng, kind, pool):
    module, value = make(kind, pool=pool), value_of(rng, kind)
    params = parameters(module, value)
    apply = jax.jit(lambda visible: module.apply(params, value, ROWS, False, visible=visible))
    whole = apply(None)
    n = whole.tokens.shape[1]
    given = apply(np.broadcast_to(np.arange(n), (4, n)))
    np.testing.assert_allclose(given.pooled, whole.pooled, atol=FLOAT32)
    np.testing.assert_allclose(given.tokens, whole.tokens, atol=FLOAT32)
    order = rng.permutation(n)
    shuffled = apply(np.broadcast_to(order, (4, n)))  # each patch carries its position with it
    np.testing.assert_allclose(shuffled.pooled, whole.pooled, atol=FLOAT32)
    np.testing.assert_allclose(shuffled.tokens, whole.tokens[:, order], atol=FLOAT32)


def test_hidden_patches_have_no_influence(rng):
    module, value = make("image"), value_of(rng, "image")
    params = parameters(module, value)
    visible = np.broadcast_to(np.array([1, 4]), (4, 2))

    def pooled(v):
        return module.apply(params, v, ROWS, False, visible=visible).pooled.sum()

    gradient = image_patches(jax.jit(jax.grad(pooled))(value), 4)
    assert np.any(gradient[:, [1, 4]])
    assert not np.any(gradient[:, [0, 2, 3, 5]])


@pytest.mark.parametrize("kind", ["image", "ecg"])
def test_rows_do_not_see_each_other(rng, kind):
    module, value = make(kind), value_of(rng, kind)
    params = parameters(module, value)

    def first(v):
        return module.apply(params, v, ROWS, False).pooled[0].sum()

    gradient = jax.jit(jax.grad(first))(value)
    assert np.any(gradient[0])
    assert not np.any(gradient[1:])


@pytest.mark.parametrize("kind", ["image", "ecg"])
def test_bfloat16_computes_near_float32_from_float32_parameters(rng, kind):
    value = value_of(rng, kind)
    exact, fast = make(kind), make(kind, dtype="bfloat16")
    params = parameters(fast, value)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    a, b = (jax.jit(lambda v, m=m: m.apply(params, v, ROWS, False))(value) for m in (exact, fast))
    assert b.pooled.dtype == jnp.float32  # the last norm runs in float32
    error = np.abs(a.pooled - b.pooled)
    assert 0 < error.max() < 0.15  # bfloat16 has 8 bits, over two blocks of unit-sized activations
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(fast.apply(p, value, ROWS, False).pooled ** 2)))(params)
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
