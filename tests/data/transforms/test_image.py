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


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_kept(channels, rng):
    raw = rng.integers(0, 65536, (8, 8)).astype(np.uint16)
    t = make(size=8, channels=channels, mean=0.0, std=1.0)
    for value in (raw, encode_png(raw), encode_png(raw).tobytes(), Image.fromarray(raw)):
        got = t.finish(t.prepare(t.raw(value) if not isinstance(value, np.ndarray) else value), None)
        assert got.shape == (8, 8, channels)
        np.testing.assert_allclose(got, np.repeat(raw[..., None] / 65535, channels, 2), rtol=1e-6)
    assert len(np.unique(got)) > 60  # of 64 pixels; rounded to 8 bits about 56 values are left


def test_a_window_stretches_between_its_percentiles(rng):
    raw = rng.normal(20000, 500, (64, 64)).clip(0, 65535).astype(np.uint16)
    raw[0, :5], raw[1, :5] = 65535, 0  # burnt-in letters
    t = make(size=64, window=(1, 99), mean=0.0, std=1.0)
    got = t.finish(t.prepare(raw), None)[..., 0]
    low, high = np.percentile(raw, (1, 99))
    np.testing.assert_allclose(got, ((raw - low) / (high - low)).clip(0, 1), atol=1e-5)
    eight = (raw // 257).astype(np.uint8)
    assert make(size=64, window=(1, 99)).prepare(eight).dtype == np.uint8
    assert t.spec()["window"] == [1, 99] and "window" not in make().spec()


def test_a_picture_of_one_value_survives_a_window():
    got = make(size=4, window=(1, 99)).prepare(np.full((4, 4), 77, np.uint8))
    assert not got.any()


@pytest.mark.parametrize(
    "options",
    [dict(window=(1,)), dict(window=(99, 1)), dict(window=(0, 101)), dict(crop=1.5), dict(crop=0.5, crop_aspect=0.5)],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError):
        ImageConfig(**options)


def random(t, raw, seed):
    return t.finish(t.prepare(raw), np.random.default_rng(seed))[..., 0]


def test_random_crops_keep_their_share_and_aspect():
    """Of a picture whose pixels say where they are."""
    x = np.tile(np.linspace(0, 255, 120).astype(np.uint8), (80, 1))
    y = np.tile(np.linspace(0, 255, 80).astype(np.uint8)[:, None], (1, 120))
    raw = np.stack([x, y, x], axis=2)
    t = make(size=32, channels=3, crop=0.3, crop_aspect=1.5, mean=0.0, std=1.0)
    shares, aspects = [], []
    for seed in range(200):
        got = t.finish(t.prepare(raw), np.random.default_rng(seed))
        w, h = np.ptp(got[..., 0]) * 32 / 31, np.ptp(got[..., 1]) * 32 / 31
        shares.append(w * h)
        aspects.append(w / h)
    assert 0.26 < min(shares) < 0.36 and 0.9 < max(shares) < 1.06
    assert 0.6 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.6
    plain = make(size=32, channels=3, mean=0.0, std=1.0)
    np.testing.assert_array_equal(t.finish(t.prepare(raw), None), plain.finish(plain.prepare(raw), None))


def test_nothing_is_mirrored_unless_asked(rng):
    raw = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    plain = make(size=16, mean=0.0, std=1.0)
    upright = random(plain, raw, 0)
    sides, both = set(), set()
    for seed in range(40):
        np.testing.assert_array_equal(random(plain, raw, seed), upright)
        for options, seen in ((dict(flip=0.5), sides), (dict(flip=0.5, flip_vertical=0.5), both)):
            seen.add(random(make(size=16, mean=0.0, std=1.0, **options), raw, seed).tobytes())
    assert sides == {upright.tobytes(), upright[:, ::-1].tobytes()}
    assert both == sides | {upright[::-1].tobytes(), upright[::-1, ::-1].tobytes()}


def moments(got):
    y, x = np.indices(got.shape)
    mean_x, mean_y = (got * x).sum() / got.sum(), (got * y).sum() / got.sum()
    return np.cov(np.stack([x.ravel() - mean_x, y.ravel() - mean_y]), aweights=got.ravel(), ddof=0)


def test_rotation_turns_by_up_to_its_angle_and_keeps_the_shape():
    raw = np.zeros((64, 64), np.uint8)
    raw[30:34, 12:52] = 255  # a bar along x
    angles = []
    for seed in range(80):
        values, vectors = np.linalg.eigh(moments(random(make(size=64, rotate=30, mean=0.0, std=1.0), raw, seed)))
        angles.append(np.degrees(np.arctan(vectors[1, 1] / vectors[0, 1])))
        assert values[1] == pytest.approx(40**2 / 12, rel=0.03)
    assert 20 < max(angles) <= 30.5 and -30.5 <= min(angles) < -20


def test_shear_moves_rows_along_themselves():
    raw = np.zeros((64, 64), np.uint8)
    raw[12:52, 30:34] = 255  # a bar along y
    slopes = []
    for seed in range(80):
        covariance = moments(random(make(size=64, shear=20, mean=0.0, std=1.0), raw, seed))
        slopes.append(covariance[0, 1] / covariance[1, 1])
        assert covariance[1, 1] == pytest.approx(40**2 / 12, rel=0.03)
    limit = np.tan(np.radians(20))
    assert 0.7 * limit < max(np.abs(slopes)) <= 1.03 * limit


def test_gamma_bends_the_middle_and_keeps_black_and_white():
    ramp = np.tile(np.arange(0, 255, 17, dtype=np.uint8), (15, 1))
    t = make(size=15, gamma=1.0, mean=0.0, std=1.0)
    exponents = []
    for seed in range(100):
        row = random(t, ramp, seed)[0]
        exponents.append(np.log(row[7]) / np.log(ramp[0, 7] / 255))
        np.testing.assert_allclose(row, (ramp[0] / 255) ** exponents[-1], atol=1e-4)
    assert 0.5 <= min(exponents) < 0.6 and 1.7 < max(exponents) <= 2.0


def test_blur_spreads_a_point_and_keeps_its_mass():
    raw = np.zeros((33, 33), np.uint8)
    raw[16, 16] = 255
    spreads = []
    for seed in range(40):
        got = random(make(size=33, blur=2.0, mean=0.0, std=1.0), raw, seed)
        assert got.sum() == pytest.approx(1, rel=1e-3)
        spreads.append(moments(got)[0, 0] ** 0.5)
    assert max(spreads) == pytest.approx(2, abs=0.2) and min(spreads) < 0.4


def test_brightness_and_noise_have_their_size_and_stay_in_range():
    raw = np.full((64, 64, 3), 128, np.uint8)
    means = [random(make(size=64, channels=3, brightness=0.2, mean=0.0, std=1.0), raw, s).mean() for s in range(60)]
    assert np.abs(np.array(means) - 128 / 255).max() <= 0.2 + 1e-6 and np.ptp(means) > 0.3
    t = make(size=64, channels=3, noise=0.1, mean=0.0, std=1.0)
    got = t.finish(t.prepare(raw), np.random.default_rng(0))
    assert got.std() == pytest.approx(0.1, rel=0.06)  # 4096 values: four standard errors are 4.4 %
    np.testing.assert_array_equal(got[..., 0], got[..., 2])
    t = make(size=64, noise=3.0, brightness=1.0, mean=0.0, std=1.0)
    got = t.finish(t.prepare(raw), np.random.default_rng(0))
    assert got.min() == 0 and got.max() == 1
