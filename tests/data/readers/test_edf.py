"""EDF, EDF+ and BDF files come in millivolt, whatever the ranges, rates and labels of their signals."""

import edfio
import numpy as np
import pytest

from medjax.data.readers.edf import read_edf
from medjax.data.readers.leads import LEADS
from medjax.errors import UserError


@pytest.fixture
def signal():
    t = np.arange(2500) / 250
    return np.stack([(1 + i) * 0.1 * np.sin(2 * np.pi * (1 + 0.2 * i) * t) for i in range(12)])


def write(path, signal_ct, names=LEADS, unit="mV", rate=250, annotations=None, kind="Edf"):
    make = getattr(edfio, f"{kind}Signal")
    signals = [make(x, rate, label=n, physical_dimension=unit) for x, n in zip(signal_ct, names, strict=True)]
    getattr(edfio, kind)(signals, annotations=annotations).write(path)
    return path


# 16 bits over at most +-1.2 mV.
STEP = dict(atol=4e-5, rtol=0)


@pytest.mark.parametrize(("style", "unit", "factor"), [("{}", "mV", 1), ("ECG {}", "uV", 1e3), ("EKG {}", "V", 1e-3)])
def test_labels_and_units_of_devices_are_understood(tmp_path, signal, style, unit, factor):
    path = write(tmp_path / "a.edf", signal * factor, [style.format(n) for n in LEADS], unit)
    got = read_edf(path, rate=250)
    assert got.dtype == np.float32
    # EDF writes the physical range in eight characters, which for V leaves four digits.
    np.testing.assert_allclose(got, signal, atol=4e-5 if factor >= 1 else 2e-3)


def test_values_follow_the_ranges_in_the_header(tmp_path, signal):
    """By the definition of EDF, from the bytes."""
    path = write(tmp_path / "a.edf", signal)
    data = path.read_bytes()
    low, high = (
        [float(data[256 + 12 * at + 8 * i :][:8]) for i in range(12)] for at in (104, 112)
    )  # label 16, transducer 80, dimension 8
    digital = np.frombuffer(data[256 * 13 :], "<i2").astype(float).reshape(-1, 12, 250)
    digital = digital.transpose(1, 0, 2).reshape(12, -1)
    low, high = np.array(low)[:, None], np.array(high)[:, None]
    np.testing.assert_allclose(read_edf(path, rate=250), low + (digital + 32768) * (high - low) / 65535, atol=1e-6)


def test_the_micro_sign_is_read(tmp_path, signal):
    path = write(tmp_path / "a.edf", signal * 1000, unit="uV")
    path.write_bytes(path.read_bytes().replace(b"uV ", b"\xb5V "))
    np.testing.assert_allclose(read_edf(path, rate=250), signal, **STEP)


def test_annotations_and_other_signals_are_left_out(tmp_path, signal):
    names = [*LEADS, "Resp"]
    notes = [edfio.EdfAnnotation(1.5, None, "Jane Doe moved")]
    path = write(tmp_path / "a.edf", [*signal, 50 * signal[0]], names, annotations=notes)
    np.testing.assert_allclose(read_edf(path, rate=250), signal, **STEP)


def test_signals_of_several_rates_come_at_one(tmp_path, signal):
    slow = edfio.EdfSignal(signal[1][::2], 125, label="II", physical_dimension="mV")
    fast = edfio.EdfSignal(signal[0], 250, label="I", physical_dimension="mV")
    edfio.Edf([slow, fast]).write(tmp_path / "a.edf")
    got = read_edf(tmp_path / "a.edf", rate=250, leads=("I", "II"))
    np.testing.assert_allclose(got[0], signal[0], **STEP)
    np.testing.assert_allclose(got[1, 100:-100], signal[1, 100:-100], atol=5e-3)


def test_files_of_24_bits_are_read(tmp_path, signal):
    path = write(tmp_path / "a.bdf", signal, kind="Bdf")
    np.testing.assert_allclose(read_edf(path, rate=250), signal, atol=1e-6)


def test_a_part_is_the_same_as_that_part_of_the_whole(tmp_path, signal):
    path = write(tmp_path / "a.edf", signal)
    whole = read_edf(path, rate=250)
    np.testing.assert_array_equal(read_edf(path, rate=250, start=1.5, seconds=2), whole[:, 375:875])
    np.testing.assert_array_equal(read_edf(path, rate=250, start=9, seconds=5), whole[:, 2250:])
    with pytest.raises(UserError, match="no samples"):
        read_edf(path, rate=250, start=60)


@pytest.fixture
def changed(tmp_path, signal):
    data = write(tmp_path / "good.edf", signal).read_bytes()

    def change(at, value, cut=None):
        path = tmp_path / "bad.edf"
        path.write_bytes((data[:at] + value.encode() + data[at + len(value) :])[:cut])
        return path

    return change


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, "7       ", "does not begin as EDF"),
        (184, "99999999", "claims 12 signals in a header of 99999999 bytes"),
        (192, "EDF+D", "discontinuous"),
        (236, "99999999", "claims 99999999 data records of 6000 bytes and holds 60000"),
        (236, "abc     ", "header is damaged"),
        (244, "0       ", "data records of 0 seconds"),
        (244, "nan     ", "data records of nan seconds"),
        (252, "9999", "claims 9999 signals"),
        (256 + 216 * 12, "-9999999", "claims -9999999 samples"),
        (256 + 216 * 12, "99999999", "claims 10 data records of"),
        (256 + 104 * 12, "nan     ", "no range of values for 'I'"),
    ],
)
def test_headers_that_cannot_be_are_refused(changed, at, value, message):
    with pytest.raises(UserError, match=message) as caught:
        read_edf(changed(at, value), rate=250)
    assert "\n" not in str(caught.value) and "bad.edf" in str(caught.value)


def test_a_line_break_in_a_label_does_not_break_the_message(changed):
    with pytest.raises(UserError, match="lacks lead III; it has I, II, I I, aVR") as caught:
        read_edf(changed(256 + 2 * 16, "I\nI"), rate=250, derive=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 100, 256, 1000, 256 * 13, -1])
def test_a_truncated_file_is_refused(changed, cut):
    with pytest.raises(UserError, match=r"bad\.edf cannot be read"):
        read_edf(changed(0, "0", cut), rate=250)


def test_a_recording_that_was_not_closed_counts_what_is_there(changed, signal):
    np.testing.assert_allclose(read_edf(changed(236, "-1      "), rate=250), signal, **STEP)


def test_damaged_files_never_raise_anything_else(tmp_path, signal, rng):
    data, path, refused = write(tmp_path / "a.edf", signal[:, :250]).read_bytes(), tmp_path / "b.edf", 0
    for _ in range(150):
        bad = bytearray(data)
        for _ in range(rng.integers(1, 8)):
            bad[rng.integers(256 * 13)] = rng.integers(256)
        path.write_bytes(bad)
        try:
            assert read_edf(path, rate=250).shape[0] == 12
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 25
