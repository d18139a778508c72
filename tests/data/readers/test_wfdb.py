"""ECGs come in millivolt with their leads in order, whatever the file's order, unit and rate."""

import numpy as np
import pytest
from tiny_source import write_wfdb

from medjax.data.readers.wfdb import LEADS, read_ecg
from medjax.errors import UserError


@pytest.fixture
def signal(rng):
    """Smooth, so that resampling is exact to a part in a hundred."""
    t = np.arange(1000) / 100
    return np.stack([(1 + i) * 0.1 * np.sin(2 * np.pi * (1 + 0.2 * i) * t) for i in range(12)])


# 16-bit samples over at most +-1.2 mV: half a step is 2e-5 mV.
STEP = dict(atol=3e-5, rtol=0)


def test_a_record_comes_back(tmp_path, signal):
    got = read_ecg(write_wfdb(tmp_path, "r", signal), 100)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, signal, **STEP)


def test_leads_are_put_in_canonical_order(tmp_path, signal, rng):
    order = rng.permutation(12)
    path = write_wfdb(tmp_path, "r", signal[order], [LEADS[i] for i in order])
    np.testing.assert_allclose(read_ecg(path, 100), signal, **STEP)


def test_lead_names_differ_in_case_between_archives(tmp_path, signal):
    path = write_wfdb(tmp_path, "r", signal, [lead.upper() for lead in LEADS])
    np.testing.assert_allclose(read_ecg(path, 100), signal, **STEP)


def test_leads_can_be_chosen(tmp_path, signal):
    got = read_ecg(write_wfdb(tmp_path, "r", signal), 100, ("V2", "I"))
    np.testing.assert_allclose(got, signal[[LEADS.index("V2"), 0]], **STEP)


@pytest.mark.parametrize(("units", "factor"), [("uV", 1000), ("V", 0.001), ("mv", 1)])
def test_units_become_millivolt(tmp_path, signal, units, factor):
    got = read_ecg(write_wfdb(tmp_path, "r", signal * factor, units=units), 100)
    np.testing.assert_allclose(got, signal, **STEP)


def test_another_rate_is_resampled(tmp_path, signal):
    t = np.arange(5000) / 500
    fast = np.stack([(1 + i) * 0.1 * np.sin(2 * np.pi * (1 + 0.2 * i) * t) for i in range(12)])
    got = read_ecg(write_wfdb(tmp_path, "r", fast, rate=500), 100)
    assert got.shape == signal.shape
    # Away from the ends, where the filter sees zeros.
    np.testing.assert_allclose(got[:, 50:-50], signal[:, 50:-50], atol=0.01)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.hea does not exist"):
        read_ecg(tmp_path / "none", 100)


@pytest.mark.parametrize("keep", [0, 100])
def test_a_truncated_record_is_named(tmp_path, signal, keep):
    path = write_wfdb(tmp_path, "torn", signal)
    dat = path.with_suffix(".dat")
    dat.write_bytes(dat.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"torn cannot be read .*is its \.dat complete") as caught:
        read_ecg(path, 100)
    assert "\n" not in str(caught.value)


def test_a_header_without_samples_is_named(tmp_path, signal):
    path = write_wfdb(tmp_path, "lonely", signal)
    path.with_suffix(".dat").unlink()
    with pytest.raises(UserError, match="lonely cannot be read"):
        read_ecg(path, 100)


def test_nan_is_named_with_lead_and_place(tmp_path, signal):
    signal[LEADS.index("V3"), 17] = np.nan
    with pytest.raises(UserError, match="1 samples that are not numbers, the first in lead V3 at 17"):
        read_ecg(write_wfdb(tmp_path, "r", signal), 100)


def test_a_missing_lead_is_named(tmp_path, signal):
    path = write_wfdb(tmp_path, "r", signal[:11], LEADS[:11])
    with pytest.raises(UserError, match="lacks lead V6; it has I, II"):
        read_ecg(path, 100)


def test_an_unknown_unit_is_named(tmp_path, signal):
    with pytest.raises(UserError, match="is in 'bpm'"):
        read_ecg(write_wfdb(tmp_path, "r", signal, units="bpm"), 100)


def test_a_record_with_more_leads_at_another_rate(test_data):
    path = test_data / "ecg_wfdb_formats" / "s0010_re"
    slow, fast = (read_ecg(path, rate).astype(np.float64) for rate in (100, 1000))
    assert fast.shape[1] == 38400 and slow.shape == (12, 3840)
    # Einthoven: I + III = II holds only if leads and units are right; the archive's rounding is 0.5 uV a lead.
    np.testing.assert_allclose(fast[0] + fast[2], fast[1], atol=2e-3)
