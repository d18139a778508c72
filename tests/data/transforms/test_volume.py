"""Volumes come to the encoder's grid and scale, whole or as crops, and in training vary as the config says."""

import json

import nibabel
import numpy as np
import pytest

from medjax.config import build
from medjax.data.chunks import StoredVolume, encode_volume
from medjax.data.transforms.volume import VolumeConfig, VolumeTransform
from medjax.data.volumes import Volume
from medjax.errors import UserError


def make(**options) -> VolumeTransform:
    return VolumeTransform(build(VolumeConfig, options, "config"))


def raw_window(**options) -> VolumeTransform:
    """Intensities stay as they are from -1000 to 1000."""
    return make(scaling="window", window=(-1000.0, 1000.0), mean=0.5, std=0.0005, **options)


def finish(transform, volume, seed=None):
    return transform.finish(transform.prepare(volume), None if seed is None else np.random.default_rng(seed))


def stored(volume, side=8):
    header, chunks = encode_volume(volume, side)
    asked = []

    def read(index):
        asked.append(index)
        return chunks[index]

    return StoredVolume(header, read), asked


@pytest.fixture
def volume(rng):
    return Volume(rng.integers(-1000, 1000, (30, 26, 22)).astype(np.int16), (2.0, 1.0, 1.0), "HU")


def test_a_window_becomes_zero_to_one_and_then_units_of_spread():
    values = np.array([-2000, -160, 40, 240, 3000], np.int16).reshape(5, 1, 1)
    t = make(size=(5, 1, 1), fit="crop", scaling="window", window=(-160, 240), mean=0.4, std=0.2)
    got = finish(t, Volume(values, (1, 1, 1)))
    assert got.shape == (5, 1, 1, 1) and got.dtype == np.float32
    np.testing.assert_allclose(got.ravel(), (np.array([0, 0, 0.5, 1, 1]) - 0.4) / 0.2, atol=1e-6)


def test_percentiles_are_those_of_the_whole_volume(rng):
    values = rng.gamma(2, 300, (12, 12, 12)).astype(np.float32)
    low, high = np.quantile(values, (0.02, 0.98), method="nearest")
    t = make(size=(4, 4, 4), fit="crop", window=(2.0, 98.0), mean=0.0, std=1.0)
    want = ((values[4:8, 4:8, 4:8] - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(finish(t, Volume(values, (1, 1, 1)))[..., 0], want, atol=1e-6)


def test_zscore_leaves_the_empty_background_out(rng):
    values = np.zeros((6, 6, 6), np.float32)
    values[2:4] = rng.normal(500, 20, (2, 6, 6))
    got = finish(make(size=(6, 6, 6), fit="crop", scaling="zscore"), Volume(values, (1, 1, 1)))
    np.testing.assert_allclose((got[2:4].mean(), got[2:4].std()), (0, 1), atol=1e-4)
    assert np.all(got[:2] < -20)


@pytest.mark.parametrize("options", [{}, dict(scaling="window", window=(0, 1)), dict(scaling="zscore")])
def test_a_constant_volume_is_finite(options):
    got = finish(make(size=(4, 4, 4), **options), Volume(np.full((4, 4, 4), 7, np.int16), (1, 1, 1)))
    assert np.isfinite(got).all()


def test_without_scaling_every_voxel_is_kept_in_its_place(volume):
    got = finish(raw_window(size=(30, 26, 22), fit="crop"), volume)
    np.testing.assert_allclose(got[..., 0], volume.values, atol=1e-3)


def test_a_crop_takes_the_middle_and_pads_with_the_lowest(volume):
    got = finish(raw_window(size=(10, 30, 22), fit="crop"), volume)[..., 0]
    np.testing.assert_allclose(got[:, 2:28], volume.values[10:20], atol=1e-3)
    np.testing.assert_allclose(got[:, [0, 1, 28, 29]], volume.values.min(), atol=1e-3)


def test_a_spacing_is_kept_whatever_the_volume_has():
    """A ball of 10 mm has the same size in voxels, however finely it was scanned."""
    t = raw_window(size=(24, 24, 24), fit="crop", spacing=(2.0, 2.0, 2.0))
    for spacing in ((1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (2.0, 2.0, 2.0)):
        shape = [round(48 / s) for s in spacing]
        at = np.meshgrid(*((np.arange(n) + 0.5) * s - 24 for n, s in zip(shape, spacing, strict=True)), indexing="ij")
        ball = (sum(x**2 for x in at) < 10**2).astype(np.float32) * 500
        got = finish(t, Volume(ball, spacing))[..., 0] / 500
        assert got.sum() * 2**3 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.06)  # voxels of 3 mm are coarse
        weight = got.sum()
        for axis in range(3):  # and it stays in the middle
            middle = np.moveaxis(got, axis, 0).sum((1, 2)) @ np.arange(24) / weight
            assert middle == pytest.approx(11.5, abs=0.05)


def test_padding_keeps_the_whole_volume_and_its_proportions():
    values = np.full((10, 20, 40), 500, np.int16)  # 40 x 20 x 40 mm
    values[0, 0, 0] = -1000
    got = finish(raw_window(size=(16, 16, 16), fit="pad"), Volume(values, (4.0, 1.0, 1.0)))[..., 0]
    inside = got[:, 4:12]
    assert np.all(got[:, :4] < -999) and np.all(got[:, 12:] < -999) and (inside > 499).mean() > 0.99
    # Grids that are longer in mm along D: the proportions of `spacing` count, its size does not.
    for spacing in ((2.0, 1.0, 1.0), (6.0, 3.0, 3.0)):
        got = finish(raw_window(size=(16, 16, 16), fit="pad", spacing=spacing), Volume(values, (4.0, 1.0, 1.0)))[..., 0]
        assert np.all(got[:4] < -999) and np.all(got[12:] < -999) and (got[4:12, 4:12] > 499).mean() > 0.99


def test_stretching_fills_the_grid(volume):
    got = finish(raw_window(size=(7, 9, 11), fit="stretch"), volume)
    assert got.shape == (7, 9, 11, 1) and np.isfinite(got).all() and got.std() > 1


def test_training_crops_lie_anywhere_and_are_voxels_of_the_volume(volume):
    t = raw_window(size=(8, 8, 8), fit="crop")
    corners = set()
    for seed in range(60):
        got = np.rint(finish(t, volume, seed)[..., 0])
        candidates = np.argwhere(volume.values[:23, :19, :15] == got[0, 0, 0])
        found = [c for c in candidates if np.array_equal(volume.crop(c, (8, 8, 8)), got)]
        assert len(found) == 1
        corners.add(tuple(found[0]))
    assert len(corners) > 50 and max(c[0] for c in corners) > 18 and min(c[0] for c in corners) < 4


def test_shifts_move_what_is_not_cropped_and_flip_nothing():
    values = np.zeros((9, 9, 9), np.int16)
    values[4, 4, 3:7] = (100, 200, 300, 400)
    t = raw_window(size=(9, 9, 9), fit="crop", shift=0.3)
    places = set()
    for seed in range(30):
        got = np.rint(finish(t, Volume(values, (1, 1, 1)), seed)[..., 0])
        line = got[got > 0]
        assert list(line) == [100, 200, 300, 400][: len(line)] or list(line) == [100, 200, 300, 400][-len(line) :]
        if len(line) == 4:
            places.add(tuple(np.argwhere(got == 100)[0]))
    assert len(places) > 15 and all(abs(a - b) <= 3 for p in places for a, b in zip(p, (4, 4, 3), strict=True))


def test_gamma_keeps_the_ends_and_the_order(volume):
    t = make(size=(30, 26, 22), fit="crop", gamma=0.5, mean=0.0, std=1.0)
    plain = finish(t, volume).ravel()
    order = np.argsort(plain)
    exponents = set()
    for seed in range(8):
        bent = finish(t, volume, seed).ravel()
        assert bent.min() == 0 and bent.max() == 1 and np.all(np.diff(bent[order]) >= -1e-6)
        middle = (plain > 0.2) & (plain < 0.8)
        exponent = np.log(bent[middle]) / np.log(plain[middle])
        np.testing.assert_allclose(exponent, exponent[0], rtol=1e-4)
        exponents.add(round(float(exponent[0]), 3))
    assert len(exponents) == 8 and 0.6 < min(exponents) < 0.9 < 1.1 < max(exponents) < 1.65


def test_equal_random_numbers_give_equal_arrays_and_none_augment_nothing(volume):
    plain, augmented = (make(size=(8, 30, 22), fit="crop", **o) for o in ({}, dict(shift=0.2, contrast=0.2, gamma=0.2)))
    np.testing.assert_array_equal(finish(augmented, volume), finish(plain, volume))
    np.testing.assert_array_equal(finish(augmented, volume, 3), finish(augmented, volume, 3))
    assert not np.array_equal(finish(augmented, volume, 3), finish(augmented, volume, 4))
    assert augmented.spec() == plain.spec() and json.loads(json.dumps(plain.spec())) == plain.spec()
    assert augmented.empty().shape == finish(augmented, volume, 3).shape and not augmented.empty().any()


@pytest.mark.parametrize(
    "options",
    [
        dict(fit="crop"),
        dict(fit="crop", spacing=(1.3, 0.9, 1.0), scaling="zscore"),
        dict(fit="pad", shift=0.2),
        dict(fit="stretch", contrast=0.1, scaling="window", window=(-100, 300)),
    ],
)
def test_chunks_give_what_the_whole_volume_gives(volume, options):
    t, (chunked, asked) = make(size=(8, 8, 8), **options), stored(volume)
    for seed in (None, 0, 1, 2):
        np.testing.assert_array_equal(finish(t, chunked, seed), finish(t, volume, seed))
    assert asked


def test_a_crop_reads_its_own_chunks_only():
    volume = Volume(np.zeros((64, 64, 64), np.int16), (1, 1, 1))
    chunked, asked = stored(volume)
    prepared = make(size=(8, 8, 8), fit="crop").prepare(chunked)
    assert not asked and chunked.chunks == 512
    make(size=(8, 8, 8), fit="crop").finish(prepared, np.random.default_rng(0))
    assert 1 <= len(asked) <= 8 and len(set(asked)) == len(asked)


def test_channels_must_be_those_of_the_config(rng):
    volume = Volume(rng.integers(0, 99, (6, 6, 6, 2)).astype(np.int16), (1, 1, 1))
    assert finish(make(size=(4, 4, 4), channels=2), volume).shape == (4, 4, 4, 2)
    with pytest.raises(UserError, match="set channels=2"):
        finish(make(size=(4, 4, 4)), volume)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (dict(size=(0, 4, 4)), "size"),
        (dict(spacing=(1.0, 1.0)), "spacing"),
        (dict(spacing=(1.0, 1.0, 0.0)), "spacing"),
        (dict(spacing=(1.0, 1.0, 1.0), fit="stretch"), "spacing"),
        (dict(scaling="window"), "window"),
        (dict(scaling="window", window=(5, 5)), "window"),
        (dict(window=(0.3, 99.0)), "steps of 0.5"),
        (dict(scaling="zscore", window=(1, 2)), "zscore"),
        (dict(scaling="zscore", gamma=0.1), "zscore"),
    ],
)
def test_options_that_contradict_are_refused(options, what):
    with pytest.raises(UserError, match=what):
        make(**options)


def test_users_give_paths_volumes_and_arrays(tmp_path, rng):
    values = rng.integers(0, 99, (5, 6, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([-1.0, -2, 3, 1])), tmp_path / "a.nii.gz")
    t = make(size=(4, 4, 4))
    want = finish(t, Volume(values, (3.0, 2.0, 1.0)))
    for given in (tmp_path / "a.nii.gz", str(tmp_path / "a.nii.gz"), dict(values=values, spacing=(3.0, 2.0, 1.0))):
        np.testing.assert_array_equal(finish(t, t.raw(given)), want)
    assert t.raw(values.astype(np.float64)).spacing == (1, 1, 1)
    with pytest.raises(UserError, match=r"a\.stl"):
        t.raw(tmp_path / "a.stl")
