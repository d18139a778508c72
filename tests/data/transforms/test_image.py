"""Pictures fit their square as asked, and pixels scale by mean and spread."""

import numpy as np
import pytest
from PIL import Image

from medjax.data.readers.image import encode_png
from medjax.data.transforms.image import ImageConfig, ImageTransform, fit
from medjax.errors import UserError


def make(**options) -> ImageTransform:
    return ImageTransform(ImageConfig(**options))


def pixels(shape, value=255):
    return Image.fromarray(np.full(shape, value, np.uint8))


def test_pixels_are_scaled_to_units_of_spread():
    t = make(size=2, mean=0.4, std=0.2)
    raw = np.array([[0, 51], [102, 255]], np.uint8)
    got = t.finish(t.prepare(raw), None)
    assert got.shape == (2, 2, 1) and got.dtype == np.float32
    np.testing.assert_allclose(got[..., 0], (raw / 255 - 0.4) / 0.2, atol=1e-6)


def test_a_square_of_the_right_size_is_kept_pixel_by_pixel(rng):
    raw = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    for how in ("pad", "crop", "stretch"):
        np.testing.assert_array_equal(make(size=8, fit=how).prepare(raw), raw)


@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_padding_keeps_the_whole_picture_in_the_middle(shape):
    got = np.asarray(fit(pixels(shape), 16, "pad"))
    bars = got if shape[0] < shape[1] else got.T
    assert np.all(bars[4:12] == 255) and not bars[:4].any() and not bars[12:].any()


@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_cropping_takes_the_middle_square(shape):
    full = np.zeros(shape, np.uint8)
    wide = full if shape[0] < shape[1] else full.T
    wide[:, 10:30] = 200
    np.testing.assert_array_equal(np.asarray(fit(Image.fromarray(full), 20, "crop")), 200)


def test_stretching_fills_the_square():
    assert np.all(np.asarray(fit(pixels((10, 37)), 16, "stretch")) == 255)


def test_a_very_flat_picture_keeps_a_row():
    assert np.asarray(fit(pixels((1, 500)), 16, "pad")).any()


def test_encoded_and_plain_pixels_give_the_same(rng):
    raw = rng.integers(0, 256, (30, 20), dtype=np.uint8)
    t = make(size=16)
    np.testing.assert_array_equal(t.prepare(raw), t.prepare(encode_png(raw)))


def test_every_way_to_hand_over_a_picture_gives_the_same(tmp_path, rng):
    array = rng.integers(0, 256, (30, 20), dtype=np.uint8)
    png = encode_png(array).tobytes()
    (tmp_path / "a.png").write_bytes(png)
    t = make(size=16)
    ways = [array, png, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "a.png")]
    results = [t.prepare(t.raw(value)) for value in ways]
    assert all(np.array_equal(r, results[0]) for r in results)


def test_three_channels_keep_colour(rng):
    raw = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    t = make(size=8, channels=3, mean=0.0, std=1.0)
    np.testing.assert_allclose(t.finish(t.prepare(raw), None), raw / 255, atol=1e-6)


@pytest.mark.parametrize(
    "value", [np.zeros((4, 4)), np.zeros(4, np.uint8), np.zeros((4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)]
)
def test_arrays_that_are_no_picture_are_refused(value):
    with pytest.raises(UserError, match="an image must be a path or uint8"):
        make(size=8).raw(value)


def test_a_shift_moves_and_never_mirrors():
    raw = np.zeros((32, 32), np.uint8)
    raw[14:18, 10:14] = 255
    t = make(size=32, shift=0.25, mean=0.0, std=1.0)
    where = []
    for seed in range(60):
        got = t.finish(t.prepare(raw), np.random.default_rng(seed))[..., 0]
        y, x = np.indices(got.shape)
        where.append(((got * x).sum() / got.sum() - 11.5, (got * y).sum() / got.sum() - 15.5))
    # Up to a quarter of 32 pixels each way, and half a pixel of resampling.
    assert 4 < np.abs(where).max() <= 8.5
    assert np.abs(np.mean(where, axis=0)).max() < 2.5


def test_contrast_keeps_the_order_of_pixels(rng):
    raw = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    t = make(size=8, contrast=0.3)
    got = t.finish(t.prepare(raw), rng)[..., 0]
    assert np.array_equal(np.argsort(got.ravel(), kind="stable"), np.argsort(raw.ravel(), kind="stable"))
