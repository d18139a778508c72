"""Maps come back to the input exactly: what was read off the encoder's input lies where it came from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.data.manifest import Modality
from medjax.data.transforms.ecg import EcgConfig, EcgTransform
from medjax.data.transforms.image import ImageConfig, ImageTransform
from medjax.data.transforms.volume import VolumeConfig, VolumeTransform
from medjax.data.volumes import Volume
from medjax.evaluation.explain.geometry import Axis, pixel_axes, placements, to_input, token_axes
from medjax.models import make_tower

LEVELS = 255


def ramps(shape) -> list[np.ndarray]:
    """For each axis an array whose values rise along it from 0 to 1, pixel i having (i + .5) / n."""
    lines = [(np.arange(n) + 0.5) / n for n in shape]
    along = [x.reshape([-1 if d == k else 1 for d in range(len(shape))]) for k, x in enumerate(lines)]
    return [np.broadcast_to(x, shape) for x in along]


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(40, 64), (101, 50), (33, 33)])
def test_what_a_picture_showed_lies_where_it_was(how, shape):
    size = 48
    transform = ImageTransform(ImageConfig(size=size, fit=how, mean=0.0, std=1.0))
    for axis, ramp in enumerate(ramps(shape)):
        raw = np.rint(LEVELS * ramp).astype(np.uint8)
        seen = transform.finish(transform.prepare(raw), None)[..., 0]
        back = to_input(seen, pixel_axes(seen.shape), placements(transform, raw))
        assert back.shape == shape
        known = np.isfinite(back)
        if how == "crop":
            longer = int(np.argmax(shape))
            share = known.any(axis=1 - longer).mean() * max(shape) / min(shape)
            assert abs(share - 1) < 2 / min(shape)
        else:
            assert known.all()
        # Antialiased resampling and the border are off by less than two pixels of the coarser grid; 8 bits by 1/510.
        inner = known.copy()
        inner[[0, 1, -1, -2]] = inner[:, [0, 1, -1, -2]] = False
        pixel = max(1 / shape[axis], max(shape) / min(shape) / size) if how == "pad" else 1 / min(*shape, size)
        assert np.abs(back - ramp)[inner].max() < pixel + 2 / LEVELS
        assert abs(np.mean((back - ramp)[inner])) < 0.25 * pixel + 1 / LEVELS  # no shift


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
def test_what_a_volume_showed_lies_where_it_was(how):
    shape, spacing = (9, 20, 14), (2.0, 1.0, 1.0)
    transform = VolumeTransform(
        VolumeConfig(size=(8, 12, 16), fit=how, scaling="window", window=(0.0, 1.0), mean=0.0, std=1.0)
    )
    for axis, ramp in enumerate(ramps(shape)):
        raw = Volume(ramp.astype(np.float32), spacing)
        seen = transform.finish(transform.prepare(raw), None)[..., 0]
        back = to_input(seen, pixel_axes(seen.shape), placements(transform, raw))
        inner = np.isfinite(back)
        assert inner.any() and (how == "crop" or inner.all())
        for dim in range(3):
            inner[tuple([0, 1, -1, -2] if d == dim else slice(None) for d in range(3))] = False
        # Linear of a linear ramp: exact in float32 but within a voxel of the border.
        away = (ramp > 2.1 / 8) & (ramp < 1 - 2.1 / 8) if how != "crop" else inner
        np.testing.assert_allclose(back[inner & away], ramp[inner & away], atol=1e-4, err_msg=str(axis))


@pytest.mark.parametrize("samples", [60, 100, 137])
def test_an_ecg_comes_back_as_it_was_and_unseen_where_it_was_cut(rng, samples):
    schema = Modality("ecg", ("I", "II"), ("mV",) * 2, 100)
    transform = EcgTransform.create(EcgConfig(samples=100, scale=1.0), schema, None)
    raw = rng.normal(size=(2, samples)).astype(np.float32)
    seen = transform.finish(transform.prepare(raw), None)
    back = to_input(seen, pixel_axes(seen.shape), placements(transform, raw))
    known = np.isfinite(back)
    assert known[0].sum() == min(samples, 100)
    np.testing.assert_array_equal(back[known], raw[known])


def test_a_patch_is_brightest_at_its_own_place():
    transform = ImageTransform(ImageConfig(size=32, fit="pad"))
    tower = make_tower("image", {"name": "vit", "width": 8, "depth": 1, "heads": 2, "patch": 8}, {"kind": "image"})
    raw, tokens = np.zeros((50, 100), np.uint8), np.zeros((4, 4))
    tokens[1, 3] = 1  # of the padded square: rows 8 to 16, which are rows 0 to 25 of the picture, columns 75 to 100
    back = to_input(tokens, token_axes(tower, transform.empty()), placements(transform, raw))
    high = np.argwhere(back == back.max())
    assert np.isfinite(back).all()
    assert ((high[:, 0] >= 0) & (high[:, 0] < 25) & (high[:, 1] >= 75)).all()
    # Linear between middles of patches: half of it at the border to the next patch.
    np.testing.assert_allclose(back[12, 74:76].mean(), 0.5, atol=1e-6)


def test_unknown_tokens_leave_their_own_places_unknown_and_no_others():
    tokens = np.array([1.0, np.nan, 3.0])
    (place,) = placements(ImageTransform(ImageConfig(size=6, fit="stretch")), np.zeros((6, 6), np.uint8))[:1]
    back = to_input(tokens, [Axis(3, 2, 1.0)], [place])
    np.testing.assert_array_equal(np.isnan(back), [False, False, True, True, False, False])
    np.testing.assert_allclose(back[[0, 1, 4, 5]], [1, 1, 3, 3], atol=1e-6)


OPTIONS = {"width": 8, "depth": 1, "heads": 2}
RESIDUAL = {"stem": 4, "block": "basic", "depths": (1, 1, 1, 1)}
TOWERS = {
    "pictures": ("image", {"name": "vit", "patch": 8, **OPTIONS}, (32, 64, 1)),
    "volumes": ("volume", {"name": "vit", "patch": 8, "frames": 2, "depth_grid": 3, **OPTIONS}, (6, 16, 24, 1)),
    "resnet": ("image", {"name": "resnet", **RESIDUAL}, (70, 64, 1)),
    "ecg_resnet": ("ecg", {"name": "resnet_ecg", **RESIDUAL}, (2, 200)),
    "ecg_picture": ("ecg", {"name": "resnet_ecg_image", **RESIDUAL}, (12, 200)),
    "ecg_time": ("ecg", {"name": "ecg_vit", "patch": 20, **OPTIONS}, (2, 200)),
    "ecg_leads": ("ecg", {"name": "ecg_vit", "patch": 20, "tokens": "lead_time", **OPTIONS}, (2, 200)),
    "ecg_conv": ("ecg", {"name": "ecg_vit", "tokens": "conv", **OPTIONS}, (2, 203)),
    "labs": ("labs", {"name": "labs_transformer", **OPTIONS}, (5,)),
}


@pytest.mark.parametrize("name", TOWERS)
def test_there_are_as_many_places_as_tokens(name):
    kind, options, shape = TOWERS[name]
    tower = make_tower(kind, options, {"kind": kind})
    value = np.zeros(shape, np.float32)
    tokens = jax.eval_shape(lambda: tower.init_with_output(jax.random.key(0), value[None])[0].patches)
    axes = token_axes(tower, value)
    assert np.prod([a.count for a in axes]) == tokens.shape[1]
    for axis, n in zip(axes, shape, strict=False):
        assert 0 < axis.middle + axis.pitch * (axis.count - 1) <= n


def test_a_patch_stands_for_its_middle():
    tower = make_tower("image", TOWERS["pictures"][1], {"kind": "image"})
    pixels = np.asarray(tower.patchify(np.arange(32 * 64.0).reshape(1, 32, 64, 1)))[0, 2 * 8 + 3].astype(int)
    rows, columns = token_axes(tower, np.zeros((32, 64, 1)))
    assert (pixels // 64).mean() + 0.5 == rows.middle + 2 * rows.pitch
    assert (pixels % 64).mean() + 0.5 == columns.middle + 3 * columns.pitch


def test_a_place_of_a_residual_network_sees_as_far_to_either_side():
    tower, n, token = make_tower("ecg", TOWERS["ecg_resnet"][1], {"kind": "ecg"}), 416, 6
    still = np.zeros((1, 1, n), np.float32)
    params = jax.tree.map(jnp.ones_like, jax.jit(tower.init)(jax.random.key(0), still))  # no rectifier hides a path
    pushed = still + 1e4 * np.eye(n, dtype=np.float32)[:, None]
    seen = np.asarray(jax.jit(lambda x: tower.apply(params, x).tokens[:, token, 0])(np.concatenate([still, pushed])))
    there = np.flatnonzero(np.abs(seen[1:] - seen[0]) > 1)
    assert there[0] > 0 and there[-1] < n - 1
    (_, time) = token_axes(tower, still[0])
    assert (there[0] + there[-1]) / 2 + 0.5 == time.middle + token * time.pitch


def test_a_token_of_two_convolutions_stands_for_its_middle():
    _, time = token_axes(make_tower("ecg", TOWERS["ecg_conv"][1], {"kind": "ecg"}), np.zeros((2, 203)))
    first, last = 0, 4 * 5 + 4  # five windows of five, side by side
    assert time.middle == (first + last) / 2 + 0.5 and time.pitch == 5
