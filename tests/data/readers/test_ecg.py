"""What every ECG file goes through: names, units, missing and broken leads, gaps, resampling."""

import numpy as np
import pytest

from medjax.data.readers.ecg import EcgOptions, Trace, assemble, fault, resample
from medjax.data.readers.leads import LEADS, canonical
from medjax.errors import UserError


def traces(rows, names=LEADS, unit="mV", rate=100.0):
    return [Trace(n, unit, rate, np.asarray(x, np.float64)) for n, x in zip(names, rows, strict=True)]


def read(given, **options):
    return assemble(given, EcgOptions(**{"rate": 100.0, **options}), "ECG x")


@pytest.fixture
def signal(rng):
    """A record that obeys Einthoven and Goldberger."""
    one, two, *chest = rng.normal(size=(8, 300))
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


@pytest.mark.parametrize("style", ["{}", "MDC_ECG_LEAD_{}", "ECG {}", "EKG {}", "Lead {}", "lead_{}", " {} "])
@pytest.mark.parametrize("case", [str, str.lower, str.upper])
def test_names_of_leads_are_known_in_every_style(style, case):
    assert tuple(canonical(case(style.format(lead))) for lead in LEADS) == LEADS


def test_other_names_stay_apart():
    assert [canonical(n) for n in ("DI", "dii", "D3")] == ["I", "II", "III"]
    others = {canonical(n) for n in ("vx", "vy", "vz", "MLII", "V7", "ECG", "Resp", "")}
    assert len(others) == 8 and not others & set(LEADS)


@pytest.mark.parametrize(("unit", "scale"), [("uV", 1e3), ("\u00b5V", 1e3), ("\u03bcV", 1e3), ("V", 1e-3), ("nV", 1e6)])
def test_units_become_millivolt(signal, unit, scale):
    np.testing.assert_allclose(read(traces(signal * scale, unit=unit)), signal, rtol=1e-6)
    np.testing.assert_allclose(read(traces(signal * scale, unit="?"), unit=unit), signal, rtol=1e-6)


def test_an_unknown_unit_is_named(signal):
    with pytest.raises(UserError, match="is in 'bpm'; known units"):
        read(traces(signal, unit="bpm"))


def test_limb_leads_come_from_two_of_them(signal):
    eight = [0, 1, *range(6, 12)]
    given = traces(signal[eight], [LEADS[i] for i in eight])
    np.testing.assert_allclose(read(given), signal, atol=1e-6)
    with pytest.raises(UserError, match="lacks lead III; it has I, II, V1"):
        read(given, derive=False)


def test_a_missing_lead_is_named_or_left_empty(signal):
    given = traces(signal[:11], LEADS[:11])
    with pytest.raises(UserError, match=r"lacks lead V6; it has I, II.*missing_leads='zero'"):
        read(given)
    got = read(given, missing_leads="zero")
    np.testing.assert_allclose(got[:11], signal[:11], rtol=1e-6)
    assert np.isnan(got[11]).all()


def test_without_any_lead_there_is_no_record(signal):
    with pytest.raises(UserError, match="no samples of the leads"):
        read(traces(signal[:1], ["Resp"]), missing_leads="zero")


def test_a_lead_that_is_there_twice_is_named(signal):
    with pytest.raises(UserError, match="lead II twice"):
        read(traces(signal[:3], ["I", "II", "ECG II"]), leads=("I", "II"))


def test_short_gaps_become_straight_lines_and_long_ones_are_named(signal):
    for first, length in ((50, 1), (120, 5), (295, 5), (0, 4)):
        holed = signal.copy()
        holed[8, first : first + length] = np.nan
        got = read(traces(holed), max_gap=0.05)
        there = np.isfinite(holed)
        np.testing.assert_allclose(got[there], signal[there], rtol=1e-6)
        line = np.interp(np.arange(300), np.flatnonzero(there[8]), holed[8, there[8]])
        np.testing.assert_allclose(got[8], line, rtol=1e-6)
    holed[8, 200:206] = np.inf
    with pytest.raises(UserError, match="6 samples that are not numbers, the first in lead V3 at 200"):
        read(traces(holed), max_gap=0.05)
    empty = read(traces(holed), max_gap=0.05, missing_leads="zero")
    assert np.isnan(empty[8]).all() and np.isfinite(np.delete(empty, 8, axis=0)).all()


def test_faults_are_those_of_a_loose_or_overdriven_electrode(rng):
    wave = np.sin(np.arange(1000) / 7)
    assert [fault(x) for x in (np.zeros(1000), np.full(1000, 3.3) + 4e-4 * wave)] == ["flat", "flat"]
    assert [fault(x) for x in (np.clip(wave, -0.9, 2), np.clip(wave, -2, 0.9))] == ["saturated", "saturated"]
    assert fault(wave) == fault(rng.normal(size=1000).round(2)) == ""


def test_bad_leads_are_kept_emptied_or_refused(signal):
    signal[9] = 0.25
    np.testing.assert_allclose(read(traces(signal)), signal, rtol=1e-6)
    assert list(np.flatnonzero(np.isnan(read(traces(signal), bad_leads="zero")).all(axis=1))) == [9]
    with pytest.raises(UserError, match="lead V4 flat"):
        read(traces(signal), bad_leads="refuse")


def spectrum(values, rate):
    """Amplitudes of a Hann-windowed transform, so that a sine of amplitude 1 reads 1 at its frequency."""
    window = np.hanning(len(values))
    return np.fft.rfftfreq(len(values), 1 / rate), 2 * np.abs(np.fft.rfft(values * window)) / window.sum()


@pytest.mark.parametrize(("have", "want"), [(1000, 100), (500, 100), (257, 100), (360, 250), (100, 500), (250, 257.5)])
def test_a_sine_stays_a_sine(have, want):
    t = np.arange(20 * have) / have
    got = resample(np.sin(2 * np.pi * 10 * t), have, want)
    assert len(got) == pytest.approx(20 * want, abs=1)
    frequency, amplitude = spectrum(got, want)
    assert frequency[np.argmax(amplitude)] == pytest.approx(10, abs=0.06)
    assert amplitude.max() == pytest.approx(1, abs=0.02)
    assert amplitude[np.abs(frequency - 10) > 1].max() < 2e-3


@pytest.mark.parametrize("sine", [65, 90, 130, 210])
def test_what_the_new_rate_cannot_hold_vanishes_and_does_not_alias(sine):
    t = np.arange(10000) / 500
    got = resample(np.sin(2 * np.pi * 8 * t) + np.sin(2 * np.pi * sine * t), 500, 100)
    frequency, amplitude = spectrum(got, 100)
    assert amplitude[np.abs(frequency - 8) > 1].max() < 5e-3
    assert amplitude.max() == pytest.approx(1, abs=0.02)


def test_rates_too_far_apart_are_refused():
    with pytest.raises(UserError, match="is not resampled to 1;"):
        resample(np.zeros(10), 1e5, 1)


def test_an_offset_of_the_baseline_does_not_ring_at_the_ends():
    np.testing.assert_allclose(resample(np.full(5000, 3.0), 500, 100), 3.0, rtol=1e-6)
    ramp = np.linspace(-1, 4, 5001)
    np.testing.assert_allclose(resample(ramp, 500, 100), ramp[::5], atol=0.01)


def test_leads_of_several_rates_end_together(rng):
    given = [Trace("I", "mV", 500.0, rng.normal(size=1003)), Trace("II", "mV", 250.0, rng.normal(size=502))]
    assert read(given, leads=("I", "II")).shape == (2, 201)
    given[1] = Trace("II", "mV", 250.0, rng.normal(size=300))
    with pytest.raises(UserError, match="different lengths"):
        read(given, leads=("I", "II"))


def test_a_short_record_is_refused_where_seconds_are_asked(signal):
    assert read(traces(signal), min_seconds=3.0).shape == (12, 300)
    with pytest.raises(UserError, match="3 s long, and min_seconds is 10"):
        read(traces(signal), min_seconds=10.0)


def test_a_rate_that_would_fill_the_memory_is_refused(signal):
    slow = [Trace(n, "mV", 1.0, x) for n, x in zip(LEADS, signal, strict=True)]
    with pytest.raises(UserError, match="at this rate has 360000000 samples, at most 67108864"):
        read(slow, rate=1e5)


@pytest.mark.parametrize(
    "options",
    [
        dict(rate=0.0),
        dict(rate=1e9),
        dict(leads=()),
        dict(leads=("I", "i")),
        dict(max_gap=-1.0),
        dict(seconds=float("nan")),
        dict(start=1e300),
        dict(unit="furlong"),
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError):
        EcgOptions(**{"rate": 100.0, **options})
