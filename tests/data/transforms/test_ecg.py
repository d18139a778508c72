"""ECGs become windows of fixed length: the middle of long ones, padding after short ones."""

import numpy as np
import pytest
from tiny_source import write_wfdb

from medjax.data.readers.leads import LEADS
from medjax.data.transforms.ecg import EcgConfig, EcgTransform
from medjax.errors import UserError


def make(**options) -> EcgTransform:
    return EcgTransform(EcgConfig(**{"scale": 1.0, **options}), LEADS, 100.0)


def finish(t: EcgTransform, raw, seed=None):
    return t.finish(t.prepare(raw), None if seed is None else np.random.default_rng(seed))


def test_evaluation_takes_the_middle(rng):
    raw = rng.normal(size=(12, 50)).astype(np.float32)
    np.testing.assert_array_equal(finish(make(samples=20), raw), raw[:, 15:35])


def test_training_takes_any_window():
    raw = np.tile(np.arange(30, dtype=np.float32), (12, 1)) / 10
    got = {float(finish(make(samples=20), raw, seed)[0, 0]) for seed in range(200)}
    assert got == {np.float32(i) / np.float32(10) for i in range(11)}


def test_a_short_record_is_padded_at_its_end(rng):
    raw = rng.normal(size=(12, 8)).astype(np.float32)
    got = finish(make(samples=20), raw)
    np.testing.assert_array_equal(got[:, :8], raw)
    assert got.shape == (12, 20) and not got[:, 8:].any()


def test_millivolt_become_units_of_scale_and_are_clipped():
    raw = np.zeros((12, 4), np.float32)
    raw[0] = [0.25, -1.0, 30.0, -30.0]
    np.testing.assert_array_equal(finish(make(samples=4, scale=0.5, clip=20.0), raw)[0], [0.5, -2.0, 20.0, -20.0])


def test_gain_scales_all_leads_alike(rng):
    raw = rng.normal(size=(12, 20)).astype(np.float32)
    for seed in range(20):
        ratio = finish(make(samples=20, gain=0.2), raw, seed) / raw
        assert np.ptp(ratio) < 1e-5 and 0.8 <= ratio.mean() <= 1.2


def test_dropped_leads_are_zero_and_the_others_as_they_were(rng):
    raw = rng.normal(size=(12, 20)).astype(np.float32)
    dropped = 0
    for seed in range(100):
        got = finish(make(samples=20, lead_drop=0.25), raw, seed)
        gone = ~got.any(axis=1)
        np.testing.assert_array_equal(got[~gone], raw[~gone])
        dropped += gone.sum()
    # 1200 leads: four binomial standard deviations.
    assert abs(dropped / 1200 - 0.25) < 4 * (0.25 * 0.75 / 1200) ** 0.5


def test_noise_has_its_spread_in_millivolt(rng):
    got = finish(make(samples=1000, scale=0.5, noise=0.1), np.zeros((12, 1000), np.float32), 0)
    assert got.std() == pytest.approx(0.2, rel=0.04)  # 12000 values: four standard errors are 2.6 %


@pytest.mark.parametrize("shape", [(11, 50), (50, 12), (600,)])
def test_another_shape_is_refused_with_the_leads(shape):
    with pytest.raises(UserError, match=r"must be \[12, T\] \(I, II, III"):
        make().prepare(np.zeros(shape, np.float32))


def test_samples_that_are_not_numbers_are_refused():
    raw = np.zeros((12, 50), np.float32)
    raw[3, 4] = np.inf
    with pytest.raises(UserError, match="not numbers"):
        make().prepare(raw)


def test_a_path_and_an_array_give_the_same(tmp_path, rng):
    signal = rng.normal(size=(12, 40)).clip(-3, 3)
    path = write_wfdb(tmp_path, "r", signal)
    t = make()
    # 16-bit samples over +-3 mV: a step is 1e-4 mV.
    np.testing.assert_allclose(t.raw(path), t.raw(signal), atol=1e-4)
    np.testing.assert_array_equal(t.raw(path), t.raw(str(path)))


@pytest.fixture
def partial(rng):
    """Leads III and V6 were not recorded."""
    raw = rng.normal(size=(12, 50)).astype(np.float32)
    raw[[2, 11]] = np.nan
    return raw


def test_absent_leads_are_zeros_with_a_false_mask(partial):
    there = np.isfinite(partial[:, 0])
    got = finish(make(samples=50, lead_mask=True), partial)
    np.testing.assert_array_equal(got["leads"], there)
    np.testing.assert_array_equal(got["value"], np.where(there[:, None], partial, 0))
    np.testing.assert_array_equal(finish(make(samples=50), partial), got["value"])
    for seed in range(5):
        noisy = finish(make(samples=50, noise=0.1, wander=0.2, warp=0.1, lead_mask=True), partial, seed)
        assert not noisy["value"][~there].any() and np.isfinite(noisy["value"]).all()


def test_dropped_leads_are_masked_and_one_stays(partial):
    t = make(samples=50, lead_mask=True, lead_drop=0.9)
    alone = set()
    for seed in range(60):
        got = finish(t, partial, seed)
        np.testing.assert_array_equal(got["leads"], got["value"].any(axis=1))
        assert got["leads"].any() and not got["leads"][[2, 11]].any()
        alone |= set(np.flatnonzero(got["leads"])) if got["leads"].sum() == 1 else set()
    assert len(alone) > 5


def test_the_mask_stands_in_the_specification_and_in_what_is_absent():
    t = make(samples=50, lead_mask=True)
    assert t.spec()["lead_mask"] is True and "lead_mask" not in make().spec()
    empty = t.empty()
    assert not empty["value"].any() and empty["leads"].all() and empty["leads"].dtype == bool


def test_an_ecg_without_leads_or_with_holes_is_refused(partial):
    with pytest.raises(UserError, match="no leads"):
        make().prepare(np.full((12, 50), np.nan, np.float32))
    partial[2, 7] = 0.0
    with pytest.raises(UserError, match="not numbers"):
        make().prepare(partial)


def test_wander_is_slow_and_no_larger_than_said():
    drift = finish(make(samples=1000, wander=0.3), np.zeros((12, 1000), np.float32), 3)
    assert 0.1 < np.abs(drift).max() <= 0.3
    assert len(np.unique(np.abs(drift).max(axis=1))) == 12
    power = np.abs(np.fft.rfft(drift * np.hanning(1000))) ** 2
    slow = np.fft.rfftfreq(1000, 0.01) <= 0.8
    assert power[:, slow].sum() > 0.999 * power.sum()


def test_warping_changes_the_pace_within_its_share():
    beat = np.tile(np.sin(2 * np.pi * 5 * np.arange(1500) / 100), (12, 1)).astype(np.float32)
    paces = []
    for seed in range(40):
        got = finish(make(samples=1000, warp=0.2), beat, seed)
        spectrum = np.abs(np.fft.rfft(got[0] * np.hanning(1000), 16384))
        paces.append(np.argmax(spectrum) * 100 / 16384 / 5)
        np.testing.assert_array_equal(got[0], got[7])
    assert 0.79 < min(paces) < 0.88 and 1.12 < max(paces) < 1.21
    with pytest.raises(UserError, match="warp"):
        EcgConfig(warp=1.0)


def test_a_short_record_stays_padded_when_it_is_warped():
    got = finish(make(samples=100, warp=0.1), np.ones((12, 40), np.float32), 0)
    assert (got[:, :35] == 1).all() and not got[:, 46:].any()
