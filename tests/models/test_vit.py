"""Vision transformers of pictures, volumes and ECGs: patches, extra tokens, other grids, visible subsets, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models import make_tower
from medjax.models.partitioning import unbox

ROWS = jnp.arange(4)
SMALL = {"width": 16, "depth": 2, "heads": 2, "patch": 4}
FLOAT32 = 1e-5  # activations of unit size through two blocks


def make(kind, **options):
    name, modality = ("vit", "image") if kind == "image" else ("ecg_vit", "ecg")
    return make_tower(modality, {"name": name, **SMALL, **options}, {"kind": kind})


def value_of(rng, kind):
    shape = (4, 8, 12, 1) if kind == "image" else (4, 3, 40)
    return rng.normal(size=shape).astype(np.float32)


def parameters(module, value):
    return unbox(jax.jit(module.init, static_argnums=3)(jax.random.key(0), value, ROWS[: len(value)], False))


def image_patches(x, patch=4, **options):
    return make("image", patch=patch, **options).patchify(x)


def ecg_patches(x, patch=4, **options):
    return make("ecg", patch=patch, **options).patchify(x)


def test_patches_of_pictures_hold_their_pixels(rng):
    x = rng.normal(size=(2, 8, 12, 3)).astype(np.float32)
    patches = np.asarray(image_patches(x))
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
    n = whole.patches.shape[1]
    given = apply(np.broadcast_to(np.arange(n), (4, n)))
    np.testing.assert_allclose(given.pooled, whole.pooled, atol=FLOAT32)
    np.testing.assert_allclose(given.patches, whole.patches, atol=FLOAT32)
    order = rng.permutation(n)
    shuffled = apply(np.broadcast_to(order, (4, n)))  # each patch carries its position with it
    np.testing.assert_allclose(shuffled.pooled, whole.pooled, atol=FLOAT32)
    np.testing.assert_allclose(shuffled.patches, whole.patches[:, order], atol=FLOAT32)


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


def test_pictures_video_and_volumes_pass_through_one_tree(rng):
    """A picture counts as a tubelet that repeats it, a volume of one channel as one of three equal ones."""
    module = make("image", frames=2, channels=3, depth_grid=2, pool="mean")
    volume = rng.normal(size=(4, 4, 8, 12, 1)).astype(np.float32)
    params = parameters(module, volume)
    video, picture = np.repeat(volume, 3, axis=-1), np.repeat(volume[:, 0], 3, axis=-1)
    a, b = module.apply(params, volume), module.apply(params, video)
    assert a.patches.shape == (4, 2 * 2 * 3, 16)
    np.testing.assert_allclose(a.pooled, b.pooled, atol=FLOAT32)
    one, two = module.apply(params, picture), module.apply(params, np.stack([picture, picture], axis=1))
    assert one.patches.shape == (4, 6, 16)
    np.testing.assert_allclose(one.tokens, two.tokens, atol=FLOAT32)
    patches = module.patchify(volume)
    np.testing.assert_array_equal(patches[:, 7].reshape(4, 2, 4, 4, 3)[..., 0], volume[:, 2:4, :4, 4:8, 0])


@pytest.mark.parametrize(
    ("shape", "options", "named"),
    [
        ((1, 3, 8, 8, 1), dict(frames=2), "3 slices do not divide into patches of 2"),
        ((1, 2, 8, 8, 1), {}, "depth_grid"),
        ((1, 8, 8, 2), dict(channels=3), "3 channels, and the picture has 2"),
        ((8, 8, 1), {}, r"got \[8, 8, 1\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(shape, options, named):
    with pytest.raises(UserError, match=named):
        make("image", **options).init(jax.random.key(0), np.zeros(shape, np.float32))


def test_extra_tokens_stand_before_the_patches(rng):
    module, value = make("image", registers=3, pool="mean", cls=True, cls_position=True), value_of(rng, "image")
    params = parameters(module, value)
    features = module.apply(params, value)
    assert features.prefix == 4 and features.tokens.shape[1] == 10 and features.patches.shape[1] == 6
    np.testing.assert_allclose(features.pooled, features.patches.mean(axis=1), atol=FLOAT32)
    moved = jax.tree.map(lambda x: x, params)
    moved["params"]["registers"] = params["params"]["registers"][:, ::-1, ::-1]
    assert np.abs(module.apply(moved, value).pooled - features.pooled).max() > 1e-3


@pytest.mark.parametrize("pool", ["cls", "mean", "attention"])
def test_the_pooled_features_alone_may_be_normed(rng, pool):
    module, value = make("image", pool=pool, norm="pooled"), value_of(rng, "image")
    pooled = module.apply(parameters(module, value), value).pooled
    np.testing.assert_allclose(pooled.mean(axis=1), 0.0, atol=FLOAT32)
    np.testing.assert_allclose(pooled.std(axis=1), 1.0, atol=1e-3)


def test_other_grids_take_the_positions_interpolated(rng):
    module, value = make("image", grid=(2, 3)), value_of(rng, "image")
    params = parameters(module, value)
    assert params["params"]["positions"].shape == (1, 6, 16)
    larger = module.apply(params, rng.normal(size=(2, 16, 16, 1)).astype(np.float32))
    assert larger.patches.shape == (2, 16, 16)
    square = make("image")
    params = parameters(square, value[:, :, :8])
    assert square.apply(params, value).patches.shape[1] == 6
    with pytest.raises(UserError, match="6 positions and the picture 2x2 patches; set grid"):
        square.apply(parameters(square, value), value[:, :, :8])


def test_patch_dropout_leaves_out_whole_patches_in_training_only(rng):
    module, value = make("image", patch_dropout=0.5, pool="mean"), value_of(rng, "image")
    params = parameters(module, value)

    @functools.partial(jax.jit, static_argnums=1)
    def apply(value, train):
        return module.apply(params, value, ROWS, train, rngs={"dropout": jax.random.key(1)})

    assert apply(value, False).patches.shape[1] == 6 and apply(value, True).patches.shape[1] == 3
    gradient = jax.grad(lambda v: jnp.sum(apply(v, True).pooled ** 2))(value)
    seen = np.any(image_patches(gradient) != 0, axis=-1)
    np.testing.assert_array_equal(seen.sum(axis=1), 3)
    assert len(np.unique(seen, axis=0)) > 1


def test_missing_leads_have_no_influence(rng):
    value, leads = value_of(rng, "ecg"), np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]], bool)
    other = np.where(leads[..., None], value, 7.0).astype(np.float32)
    for tokens in ("time", "lead_time", "conv"):
        module = make("ecg", tokens=tokens, pool="mean")
        params = parameters(module, value)
        a, b = (jax.jit(module.apply)(params, v, leads=leads) for v in (value, other))
        np.testing.assert_array_equal(a.pooled, b.pooled)


def test_a_missing_lead_is_absent_from_attention(rng):
    module, value = make("ecg", tokens="lead_time", pool="mean"), value_of(rng, "ecg")
    params = parameters(module, value)
    masked = module.apply(params, value, leads=np.array([[True, True, False]] * 4))
    fewer = jax.tree.map(lambda x: x, params)
    fewer["params"]["lead_positions"] = params["params"]["lead_positions"][:, :2]
    np.testing.assert_allclose(masked.pooled, module.apply(fewer, value[:, :2]).pooled, atol=FLOAT32)
    np.testing.assert_array_equal(masked.patch_mask.sum(axis=1), 2 * 10)


def test_two_convolutions_make_196_tokens_of_1000_samples():
    module = make("ecg", tokens="conv")
    features = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), jnp.zeros((1, 12, 1000)))[0])
    assert features.tokens.shape[1] - features.prefix == 196
    with pytest.raises(UserError, match="no patches to restore"):
        module.patchify(np.zeros((1, 12, 1000)))


def test_longer_records_take_the_positions_of_time_interpolated(rng):
    module, value = make("ecg"), value_of(rng, "ecg")
    assert module.apply(parameters(module, value), np.concatenate([value, value], axis=2)).patches.shape[1] == 20
