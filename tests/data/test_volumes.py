"""Voxels reach the canonical axes from every orientation, and another spacing by linear interpolation."""

import numpy as np
import pytest
import scipy.ndimage
from marked_volumes import ORIENTATIONS, SPACING, check_marks, marked_voxels

from medjax.data.volumes import Volume, canonical, resample, resize
from medjax.errors import UserError


@pytest.mark.parametrize("directions", [d * SPACING for d in ORIENTATIONS])
def test_marks_keep_their_place_in_the_patient(directions):
    check_marks(canonical(marked_voxels(), directions), directions)


def test_all_forty_eight_orientations_are_tried():
    assert len({d.tobytes() for d in ORIENTATIONS}) == 48


def test_channels_stay_last(rng):
    values = rng.integers(0, 99, (2, 3, 4, 5)).astype(np.int16)
    got = canonical(values, np.diag([-1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(got.values, values[::-1].transpose(2, 1, 0, 3))


def test_oblique_axes_go_to_the_nearest_with_their_own_spacing(rng):
    # A sagittal acquisition, turned by 25 degrees about z and 10 about x.
    a, b = np.deg2rad((25, 10))
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    sagittal = np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]) * (0.9, 1.1, 4.0)  # columns: backwards, down, left
    values = rng.integers(0, 99, (4, 5, 6)).astype(np.int16)
    got = canonical(values, about_x @ about_z @ sagittal)
    np.testing.assert_array_equal(got.values, values[:, ::-1].transpose(1, 0, 2))
    np.testing.assert_allclose(got.spacing, (1.1, 0.9, 4.0))


@pytest.mark.parametrize(
    "directions", [np.zeros((3, 3)), np.diag([1.0, np.nan, 1.0]), np.array([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]])]
)
def test_directions_that_do_not_span_space_are_refused(directions):
    with pytest.raises(UserError, match="axes"):
        canonical(marked_voxels(), directions)


@pytest.mark.parametrize(
    ("values", "spacing"),
    [
        (np.zeros((2, 2, 2), np.float64), (1, 1, 1)),
        (np.zeros((2, 2), np.int16), (1, 1, 1)),
        (np.zeros((0, 2, 2), np.int16), (1, 1, 1)),
        (np.zeros((2, 2, 2), np.int16), (1, 1, 0)),
        (np.zeros((2, 2, 2), np.int16), (1, 1, np.inf)),
        (np.zeros((2, 2, 2), np.int16), (1, 1)),
    ],
)
def test_what_is_no_volume_is_refused(values, spacing):
    with pytest.raises(UserError, match="volume"):
        Volume(values, spacing)


@pytest.mark.parametrize("new", [(9, 14, 30), (20, 5, 11), (10, 7, 15), (1, 1, 1)])
@pytest.mark.parametrize("labels", [False, True])
def test_resizing_equals_scipy(rng, new, labels):
    values = rng.integers(-1000, 1000, (10, 7, 15)).astype(np.int16)
    zoom = [n / k for n, k in zip(new, values.shape, strict=True)]
    options = dict(order=0 if labels else 1, mode="nearest", grid_mode=True)
    want = scipy.ndimage.zoom(values if labels else values.astype(np.float64), zoom, **options)
    got = resize(Volume(values, (1, 1, 1)), new, labels=labels)
    np.testing.assert_allclose(got, want, atol=0 if labels else 2e-3)  # float32 of numbers up to 1000


def test_a_box_of_the_new_grid_is_cut_out_of_it(rng):
    volume = Volume(rng.integers(0, 1000, (10, 17, 15)).astype(np.int16), (1, 1, 1))
    whole = resize(volume, (25, 11, 15))
    for start, size in [((0, 0, 0), (1, 1, 1)), ((24, 3, 2), (1, 8, 13)), ((7, 2, 0), (10, 9, 15))]:
        inside = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        np.testing.assert_array_equal(resize(volume, (25, 11, 15), start, size), whole[inside])


def test_a_ramp_in_mm_is_the_same_ramp_at_another_spacing():
    """Positions count from the border of the volume, so that nothing shifts by a part of a voxel."""
    middles = (np.arange(40) + 0.5) * 2.0
    volume = Volume(np.broadcast_to(middles[:, None, None], (40, 3, 3)).astype(np.float32), (2.0, 1.0, 1.0))
    got = resample(volume, (1.25, 1.0, 1.0))
    assert got.shape == (64, 3, 3) and got.spacing == (1.25, 1.0, 1.0)
    inside = slice(1, -1)  # beyond the outermost middles a value is repeated
    np.testing.assert_allclose(got.values[inside, 0, 0], ((np.arange(64) + 0.5) * 1.25)[inside], rtol=1e-5)


def test_the_spacing_is_that_of_the_rounded_number_of_voxels():
    got = resample(Volume(np.zeros((10, 10, 10), np.uint8), (1.0, 1.0, 1.0)), (3.0, 1.0, 1.0))
    assert got.shape == (3, 10, 10)
    np.testing.assert_allclose(got.spacing, (10 / 3, 1, 1))


def test_labels_stay_labels(rng):
    labels = Volume(rng.choice([0, 3, 7], (6, 6, 6)).astype(np.uint8), (2.0, 2.0, 2.0))
    got = resample(labels, (0.7, 1.1, 3.0), labels=True)
    assert got.values.dtype == np.uint8 and set(np.unique(got.values)) <= {0, 3, 7}


def test_a_grid_without_bounds_is_refused():
    volume = Volume(np.zeros((10, 10, 10), np.uint8), (1.0, 1.0, 1.0))
    with pytest.raises(UserError, match="more than"):
        resample(volume, (1e-3, 1e-3, 1e-3))


def test_statistics_are_of_each_channel(rng):
    values = rng.normal(size=(6, 7, 8, 2)).astype(np.float32) * (1, 10)
    values[:3] = 0
    got = Volume(values.astype(np.float32), (1, 1, 1)).statistics
    for c, channel in enumerate(values.astype(np.float32).reshape(-1, 2).T):
        np.testing.assert_array_equal(
            got.percentiles[c, [0, 100, 200]], np.quantile(channel, (0, 0.5, 1), method="nearest")
        )
        np.testing.assert_allclose(got.mean[c], channel[channel != 0].mean(), atol=1e-6)
        np.testing.assert_allclose(got.std[c], channel[channel != 0].std(), rtol=1e-5)


def test_statistics_of_a_constant_volume_are_finite():
    for value in (0, 5):
        got = Volume(np.full((2, 2, 2), value, np.int16), (1, 1, 1)).statistics
        assert got.mean == value and got.std == 0 and np.all(got.percentiles == value)


def test_statistics_of_many_voxels_are_those_of_a_spread_sample():
    values = np.broadcast_to(np.arange(4096, dtype=np.int16), (2, 600, 4096))  # a stride that divides rows sees columns
    got = Volume(values, (1, 1, 1)).statistics.percentiles[0]
    np.testing.assert_allclose(got, np.linspace(0, 4095, 201), atol=8)
