"""ECGs in CSV: columns are leads, and time, units and gaps are as the options and the header say."""

import gzip

import numpy as np
import pytest

from medjax.data.readers.csv_ecg import read_csv_ecg
from medjax.data.readers.ecg import read_ecg
from medjax.data.readers.leads import LEADS
from medjax.errors import UserError


@pytest.fixture
def signal(rng):
    return rng.normal(size=(12, 200)).round(4)


def write(path, columns, header, delimiter=","):
    rows = [delimiter.join(header)] if header else []
    rows += [delimiter.join("" if np.isnan(v) else repr(float(v)) for v in row) for row in np.transpose(columns)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_columns_are_leads_in_any_order(tmp_path, signal, rng):
    order = rng.permutation(12)
    path = write(tmp_path / "a.csv", signal[order], [f"ECG {LEADS[i].lower()}" for i in order])
    got = read_csv_ecg(path, rate=100, file_rate=100, unit="mV")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, signal, rtol=1e-6)


def test_units_stand_in_the_header_or_in_the_options(tmp_path, signal):
    micro = write(tmp_path / "a.csv", signal * 1000, [f"{n} ({'uV' if n[0] == 'V' else 'µV'})" for n in LEADS])
    np.testing.assert_allclose(read_csv_ecg(micro, rate=100, file_rate=100), signal, rtol=1e-6)
    bare = write(tmp_path / "b.csv", signal, LEADS)
    np.testing.assert_allclose(read_csv_ecg(bare, rate=100, file_rate=100, unit="uV"), signal / 1000, rtol=1e-6)
    with pytest.raises(UserError, match="is in ''; known units: mV, uV"):
        read_csv_ecg(bare, rate=100, file_rate=100)


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 1e3), ("us", 1e6)])
def test_a_column_tells_the_time(tmp_path, signal, unit, per_second):
    time = 5 + np.arange(200) / 250 * per_second
    path = write(tmp_path / "a.csv", [time, *signal], ["time", *LEADS])
    np.testing.assert_allclose(read_csv_ecg(path, rate=250, time="time", time_unit=unit, unit="mV"), signal, rtol=1e-6)


def test_uneven_time_is_refused_with_its_row(tmp_path, signal):
    time = np.arange(200) / 250
    time[120:] += 0.1
    path = write(tmp_path / "a.csv", [time, *signal], ["t", *LEADS])
    with pytest.raises(UserError, match="unequal steps of time, the first at row 1"):
        read_csv_ecg(path, rate=250, time="t", unit="mV")


def test_a_file_without_a_header_takes_names_from_the_options(tmp_path, signal):
    path = write(tmp_path / "a.csv", signal, None, ";")
    got = read_csv_ecg(path, rate=100, file_rate=100, unit="mV", columns=LEADS, delimiter=";")
    np.testing.assert_allclose(got, signal, rtol=1e-6)


def test_empty_cells_are_gaps(tmp_path, signal):
    holed = signal.copy()
    holed[2, 10:13] = np.nan
    path = write(tmp_path / "a.csv", holed, LEADS)
    with pytest.raises(UserError, match="3 samples that are not numbers, the first in lead III at 10"):
        read_csv_ecg(path, rate=100, file_rate=100, unit="mV")
    got = read_csv_ecg(path, rate=100, file_rate=100, unit="mV", max_gap=0.03)
    line = np.interp([10, 11, 12], [9, 13], signal[2, [9, 13]])
    np.testing.assert_allclose(got[2, 10:13], line, rtol=1e-5)


def test_a_part_and_another_rate(tmp_path):
    t = np.arange(2000) / 500
    path = write(tmp_path / "a.csv", [np.sin(2 * np.pi * 5 * t)], ["V2"])
    got = read_csv_ecg(path, rate=100, file_rate=500, unit="mV", leads=["V2"], start=1, seconds=2)
    assert got.shape == (1, 200)
    np.testing.assert_allclose(got[0, 20:-20], np.sin(2 * np.pi * 5 * t[500:1500:5])[20:-20], atol=2e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header"),
        ("I,II\n", "no samples"),
        ("I,I\n1,2\n", "names every column once"),
        ("I,II\n1\n", "line 2 has 1 cells and 2 columns"),
        ("I,II\n1,2\n1,x\n", "line 3: column 'II' holds 'x', which is no number"),
        ("I,V9\n1,2\n", "lacks lead II; it has I, V9"),
        ("I,II\n" + "1" * 70000, "line of more than 65536"),
        (",".join(f"c{i}" for i in range(300)), "claims 300 signals"),
        ('I,II\n"1,2\n', r"line 2 has 1 cells|cannot be read as UTF-8 CSV"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_csv_ecg(tmp_path / "bad.csv", rate=100, file_rate=100, unit="mV", leads=("I", "II"))
    assert "\n" not in str(caught.value) and "bad.csv" in str(caught.value)


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b"I,II\n\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        read_csv_ecg(tmp_path / "bad.csv", rate=100, file_rate=100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs file_rate"),
        (dict(file_rate=100, dlimiter=";"), "did you mean 'delimiter'"),
        (dict(time="t"), "no column 't' for the time"),
    ],
)
def test_options_are_checked(tmp_path, signal, options, message):
    path = write(tmp_path / "a.csv", signal, LEADS)
    with pytest.raises(UserError, match=message):
        read_csv_ecg(path, rate=100, **options)


def test_files_in_gzip_are_read_and_bounded(tmp_path, signal):
    path = write(tmp_path / "a.csv", signal, LEADS)
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    options = dict(rate=100, file_rate=100, unit="mV")
    np.testing.assert_array_equal(read_csv_ecg(packed, **options), read_csv_ecg(path, **options))
    for data in (packed.read_bytes()[:-20], b"no gzip"):
        packed.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.csv\.gz cannot be read"):
            read_csv_ecg(packed, **options)


def test_a_path_alone_is_read_by_what_stands_there(tmp_path, signal):
    with pytest.raises(UserError, match="in CSV needs file_rate"):
        read_ecg(write(tmp_path / "a.CSV", signal, LEADS), 100)
    with pytest.raises(UserError, match="does not exist"):
        read_ecg(tmp_path / "none", 100)
    (tmp_path / "b.edf").write_bytes(b"0       ")
    with pytest.raises(UserError, match="less than a header of EDF"):
        read_ecg(tmp_path / "b.edf", 100)
