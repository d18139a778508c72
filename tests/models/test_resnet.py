"""Residual networks: statistics of batch norms, independence of rows, leads, sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from medjax.errors import UserError
from medjax.models import make_tower
from medjax.models.batch_norm import BatchNorm
from medjax.models.partitioning import unbox

TINY = {"stem": 4, "depths": (1,), "widths": (8,), "block": "basic"}
FLOAT32 = 1e-5  # activations of unit size through three convolutions
ROWS = 16
KINDS = {"resnet": "image", "resnet_ecg": "ecg", "resnet_ecg_image": "ecg"}


def make(name="resnet", **options):
    return make_tower("m", {"name": name, **TINY, **options}, {"kind": KINDS[name]})


def pictures(rng, rows=ROWS):
    return rng.normal(size=(rows, 8, 6, 1)).astype(np.float32)


def parameters(module, value):
    return unbox(jax.jit(module.init)(jax.random.key(0), value))


def evaluate(module):
    return jax.jit(
        lambda variables, value, leads=None: module.apply(
            variables, value, **({} if leads is None else {"leads": leads})
        )
    )


@functools.cache
def trained():
    """(variables, `(variables, value, present) -> (gradient, features, new statistics)` of a training step)."""
    module = make()
    variables = parameters(module, pictures(np.random.default_rng(1), 1))

    def loss(params, stats, value, present):
        features, changed = module.apply(
            {"params": params, "batch_stats": stats}, value, train=True, present=present, mutable=["batch_stats"]
        )
        return jnp.mean(jnp.sin(features.pooled) * present[:, None]), (features, changed["batch_stats"])

    @jax.jit
    def step(variables, value, present):
        gradient, rest = jax.grad(loss, has_aux=True)(variables["params"], variables["batch_stats"], value, present)
        return gradient, *rest

    return variables, step


def close(a, b, tolerance=FLOAT32):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance), a, b)


def normed(x, present=None, stats=None, train=True):
    norm = BatchNorm()
    variables = unbox(norm.init(jax.random.key(0), x, None, False))
    variables["params"] = {"scale": jnp.linspace(0.5, 2, x.shape[-1]), "bias": jnp.linspace(-1, 1, x.shape[-1])}
    variables["batch_stats"] = stats or variables["batch_stats"]
    out, changed = norm.apply(variables, x, present, train, mutable=["batch_stats"])
    return out, changed["batch_stats"]


def test_batch_norm_is_that_of_torch_over_several_updates(rng):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm2d(3)
    theirs.load_state_dict({"weight": torch.linspace(0.5, 2, 3), "bias": torch.linspace(-1, 1, 3)}, strict=False)
    stats = None
    for train in (True, True, False):
        x = rng.normal(5, 2, size=(4, 6, 5, 3)).astype(np.float32)
        theirs.train(train)
        want = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach()
        out, stats = normed(x, stats=stats, train=train)
        np.testing.assert_allclose(out, want, atol=FLOAT32)
    np.testing.assert_allclose(stats["mean"], theirs.running_mean, rtol=FLOAT32)
    np.testing.assert_allclose(stats["var"], theirs.running_var, rtol=FLOAT32)
    assert int(stats["batches"]) == int(theirs.num_batches_tracked) == 2


def test_moments_are_those_of_the_present_rows(rng):
    x = rng.normal(3, 2, size=(6, 5, 4)).astype(np.float32)
    present = np.array([True, False, True, True, False, True])
    x[1], x[4] = 1e6, np.nan
    out, stats = normed(x, present)
    want, want_stats = normed(x[present])
    close(out[present], want)
    close(stats, want_stats)
    assert not np.any(out[~present])


def test_a_large_mean_does_not_cancel_the_variance(rng):
    x = rng.normal(size=(8, 9, 2)).astype(np.float32)
    # 4096 + x keeps 11 bits behind the point: x itself is known to 2^-12.
    close(normed(np.float32(4096) + x)[0], normed(x)[0], 2e-3)


def test_a_batch_without_present_rows_changes_nothing_and_stays_finite(rng):
    variables, step = trained()
    gradient, features, stats = step(variables, pictures(rng), np.zeros(ROWS, bool))
    close(stats, variables["batch_stats"], 0)
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))
    assert np.all(np.isfinite(features.tokens))


def test_absent_rows_have_no_part_in_a_training_step(rng):
    variables, step = trained()
    present, value = np.arange(ROWS) % 5 != 0, pictures(rng)
    other = np.where(present[:, None, None, None], value, 100)
    a, b = step(variables, value, present), step(variables, other, present)
    close(a, b, 0)
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), a[2], variables["batch_stats"])
    assert all(jax.tree.leaves(moved))


def test_statistics_are_of_the_global_batch_on_any_number_of_devices(rng):
    variables, step = trained()
    value, present = pictures(rng), np.arange(ROWS) % 5 != 0
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    over = NamedSharding(mesh, PartitionSpec("batch"))
    one = step(variables, value, present)
    eight = step(variables, jax.device_put(value, over), jax.device_put(present, over))
    assert len(eight[1].pooled.sharding.device_set) == 8
    close(one, eight)


def test_evaluation_reads_running_statistics_and_keeps_them(rng):
    (variables, step), value = trained(), pictures(rng)
    trained_stats = step(variables, value, np.ones(ROWS, bool))[2]
    apply = jax.jit(lambda v, x: make().apply(v, x, mutable=["batch_stats"]))
    features, changed = apply({**variables, "batch_stats": trained_stats}, value)
    close(changed["batch_stats"], trained_stats, 0)
    other, _ = apply({**variables, "batch_stats": trained_stats}, np.where(np.arange(ROWS) < 2, value.T, 100).T)
    close(features.pooled[:2], other.pooled[:2])  # rows are apart
    assert np.abs(features.pooled - apply(variables, value)[0].pooled).max() > 1e-2


def test_frozen_statistics_are_those_of_evaluation_in_training_too(rng):
    module, value = make(frozen_statistics=True), pictures(rng)
    variables = trained()[0]
    features, changed = module.apply(variables, value, train=True, mutable=["batch_stats"])
    close(changed["batch_stats"], variables["batch_stats"], 0)
    close(features.pooled, evaluate(module)(variables, value).pooled)


def test_group_norm_keeps_rows_apart_in_training(rng):
    module, value = make(norm="group", groups=2), pictures(rng)
    variables = parameters(module, value[:1])
    assert variables.keys() == {"params"}
    other = np.concatenate([value[:2], pictures(rng, ROWS - 2)])
    apply = jax.jit(lambda x: module.apply(variables, x, train=True).tokens)
    a, b = apply(value), apply(other)
    close(a[:2], b[:2], 0)
    assert np.abs(a[2:] - b[2:]).max() > 1e-2


@pytest.mark.parametrize("name", ["resnet_ecg", "resnet_ecg_image"])
def test_absent_leads_are_not_seen(rng, name):
    module, value = make(name), rng.normal(size=(2, 3, 32)).astype(np.float32)
    variables, apply = parameters(module, value), evaluate(module)
    leads = np.array([[True, True, False], [True, True, True]])
    other = np.where(leads[..., None], value, 7)
    a, b = (apply(variables, x, leads) for x in (value, other))
    close(a, b, 0)
    plain = apply(variables, value, np.ones_like(leads))
    close(a.pooled[1], plain.pooled[1], 0)
    assert np.abs(a.pooled[0] - plain.pooled[0]).max() > 1e-3


def test_an_ecg_as_a_picture_has_time_down_and_leads_across(rng):
    value = rng.normal(size=(2, 3, 32)).astype(np.float32)
    module, image = make("resnet_ecg_image"), make("resnet")
    picture = np.moveaxis(value, 1, 2)[..., None]
    variables = parameters(image, picture)
    close(evaluate(module)(variables, value), evaluate(image)(variables, picture), 0)


def test_weights_of_three_channels_see_grey_pictures_as_their_rgb_copies(rng):
    module, grey = make(channels=3), pictures(rng, 2)
    rgb = np.repeat(grey, 3, axis=-1)
    variables, apply = parameters(module, rgb), evaluate(module)
    close(apply(variables, grey), apply(variables, rgb), 0)
    with pytest.raises(UserError, match="weights for 3 channels, and the data have 2"):
        apply(variables, rgb[..., :2])


def test_bfloat16_computes_near_float32_and_keeps_its_statistics_in_it(rng):
    (variables, step), value = trained(), pictures(rng)
    module = make(dtype="bfloat16")
    features, changed = jax.jit(lambda x: module.apply(variables, x, train=True, mutable=["batch_stats"]))(value)
    _, want, stats = step(variables, value, np.ones(ROWS, bool))
    assert features.pooled.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(changed)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    close(features.pooled.astype(np.float32), want.pooled, 0.05)  # three layers of 8 bits
    close(changed["batch_stats"], stats, 0.02)


@pytest.mark.parametrize(("variant", "width"), [("18", 512), ("34", 512), ("50", 2048)])
def test_published_sizes_see_a_32nd_of_each_side(variant, width):
    module = make_tower("m", {"name": "resnet", "variant": variant}, {"kind": "image"})
    features = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), jnp.zeros((2, 224, 192, 3)))[0])
    assert features.pooled.shape == (2, width)
    assert features.tokens.shape == (2, 7 * 6, width)
    assert features.token_mask.shape == (2, 42)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"norm": "group", "groups": 3}, "groups=3"),
        ({"widths": (8, 16)}, "got 2 and 1"),
        ({"widths": (10,), "block": "bottleneck"}, "divide by 4, got 10"),
        ({"variant": "51"}, "unknown size.*'51'"),
    ],
)
def test_impossible_sizes_are_named(options, named):
    with pytest.raises(UserError, match=named):
        make(**options)
