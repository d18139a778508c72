"""WFDB records come in millivolt with their leads in order, whatever the format of their samples."""

import numpy as np
import pytest
import scipy.io
import wfdb
from tiny_source import write_wfdb

from medjax.data.readers import files_of
from medjax.data.readers.leads import LEADS
from medjax.data.readers.wfdb import read_wfdb
from medjax.data.readers.wfdb_header import read_header
from medjax.errors import UserError

# 16-bit samples over at most +-1.2 mV: half a step is 2e-5 mV.
STEP = dict(atol=3e-5, rtol=0)


@pytest.fixture
def signal():
    t = np.arange(1000) / 100
    return np.stack([(1 + i) * 0.1 * np.sin(2 * np.pi * (1 + 0.2 * i) * t) for i in range(12)])


def write_header(folder, name, lines, rest="", rate=500, samples=5000):
    text = "\n".join([f"{name} {len(lines)} {rate} {samples}{rest}", *lines, "# Age: 74"])
    (folder / f"{name}.hea").write_text(text + "\n")
    return folder / name


def write_matlab(folder, name, digital_ct, gain=1000.0):
    """As the PhysioNet challenges of 2020 and 2021 keep Chapman, Georgia and CPSC."""
    scipy.io.savemat(folder / f"{name}.mat", {"val": digital_ct.astype(np.int16)}, format="4")
    lines = [f"{name}.mat 16+24 {gain:g}/mV 16 0 {x[0]} 0 0 {n}" for x, n in zip(digital_ct, LEADS, strict=True)]
    return write_header(folder, name, lines, " 10:00:00 01/01/2020", 500, digital_ct.shape[1])


def test_a_record_comes_back_with_or_without_its_ending(tmp_path, signal):
    path = write_wfdb(tmp_path, "r", signal)
    got = read_wfdb(path, rate=100)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, signal, **STEP)
    np.testing.assert_array_equal(read_wfdb(f"{path}.hea", rate=100), got)


def test_header_and_samples_are_the_files_of_a_record(tmp_path, signal):
    path = write_wfdb(tmp_path, "r", signal)
    write_wfdb(tmp_path, "r2", signal)
    expected = [path.with_suffix(".dat"), path.with_suffix(".hea")]
    assert files_of(path) == files_of(path.with_suffix(".hea")) == expected


def test_leads_are_put_in_canonical_order(tmp_path, signal, rng):
    order = rng.permutation(12)
    path = write_wfdb(tmp_path, "r", signal[order], [LEADS[i] for i in order])
    np.testing.assert_allclose(read_wfdb(path, rate=100), signal, **STEP)


def test_samples_in_matlab_files_are_read_behind_their_header(tmp_path, rng):
    digital = rng.integers(-3000, 3000, (12, 700))
    path = write_matlab(tmp_path, "JS00001", digital, gain=200.0)
    np.testing.assert_array_equal(scipy.io.loadmat(tmp_path / "JS00001.mat")["val"], digital)
    np.testing.assert_allclose(read_wfdb(path, rate=500), digital / 200, rtol=1e-6)


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212"])
def test_every_format_of_samples_gives_its_physical_values(tmp_path, fmt, rng):
    top = 120 if fmt == "80" else 2000
    digital = rng.integers(-top, top, (301, 2))
    wfdb.wrsamp("r", fs=100, units=["mV", "uV"], sig_name=["I", "II"], d_signal=digital, fmt=[fmt] * 2,
                adc_gain=[200.0, 0.5], baseline=[7, 0], write_dir=str(tmp_path))  # fmt: skip
    got = read_wfdb(tmp_path / "r", rate=100, leads=("I", "II"))
    np.testing.assert_allclose(got, np.stack([(digital[:, 0] - 7) / 200, digital[:, 1] / 500]), rtol=1e-6, atol=1e-9)


def test_signals_of_several_rates_come_at_one(tmp_path):
    t = np.arange(1000) / 200
    wave = 1000 * np.sin(2 * np.pi * 3 * t)
    frames = np.stack([wave[0::2], wave[1::2], wave[0::2]], axis=1).round()  # lead I twice as often as II
    frames.astype("<i2").tofile(tmp_path / "r.dat")
    path = write_header(tmp_path, "r", ["r.dat 16x2 1000/mV 16 0 0 0 0 I", "r.dat 16 1000/mV 16 0 0 0 0 II"],
                        rate=100, samples=500)  # fmt: skip
    first, second = read_wfdb(path, rate=200, leads=("I", "II"))
    np.testing.assert_allclose(first, wave.round() / 1000, atol=1e-6)
    np.testing.assert_allclose(second[100:-100], wave[100:-100] / 1000, atol=0.01)


def test_signals_may_lie_in_several_files(test_data):
    """15 leads, Frank's in a file of their own; against the bytes themselves."""
    folder = test_data / "ecg_wfdb_formats"
    raw = np.fromfile(folder / "s0010_re.dat", "<i2").reshape(-1, 12) / 2000
    got = read_wfdb(folder / "s0010_re", rate=1000)
    np.testing.assert_allclose(got, raw.T, rtol=1e-6)
    frank = np.fromfile(folder / "s0010_re.xyz", "<i2").reshape(-1, 3) / 2000
    np.testing.assert_allclose(
        read_wfdb(folder / "s0010_re", rate=1000, leads=("vz", "vx")), frank.T[[2, 0]], rtol=1e-6
    )
    # Einthoven: I + III = II holds only if leads and units are right; the archive rounds each to 0.5 uV.
    slow = read_wfdb(folder / "s0010_re", rate=100).astype(np.float64)
    assert slow.shape == (12, 3840)
    np.testing.assert_allclose(slow[0] + slow[2], slow[1], atol=2e-3)


def test_real_records_equal_their_bytes(test_data):
    headers = sorted((test_data / "ecg_ptbxl100" / "records100").rglob("*.hea"))
    assert len(headers) > 300
    for header in headers[::40]:
        got = read_wfdb(header.with_suffix(""), rate=100)
        raw = np.fromfile(header.with_suffix(".dat"), "<i2").reshape(1000, 12) / 1000
        np.testing.assert_allclose(got, raw.T, rtol=1e-6)
        np.testing.assert_allclose(got, wfdb.rdrecord(str(header.with_suffix(""))).p_signal.T, rtol=1e-6)


def test_a_part_is_the_same_as_that_part_of_the_whole(tmp_path, signal):
    path = write_wfdb(tmp_path, "r", signal)
    whole = read_wfdb(path, rate=100)
    np.testing.assert_array_equal(read_wfdb(path, rate=100, start=2.5, seconds=4), whole[:, 250:650])
    np.testing.assert_array_equal(read_wfdb(path, rate=100, start=8, seconds=4), whole[:, 800:])
    with pytest.raises(UserError, match="no samples from 11 s on"):
        read_wfdb(path, rate=100, start=11)


@pytest.fixture
def in_segments(tmp_path, signal):
    """Segments a (4 s), a gap of 1 s, b (5 s)."""
    write_wfdb(tmp_path, "a", signal[:, :400])
    write_wfdb(tmp_path, "b", signal[:, 500:])
    (tmp_path / "m.hea").write_text("m/3 12 100 1000\na 400\n~ 100\nb 500\n")
    return tmp_path / "m"


def test_segments_are_joined_and_what_lies_between_is_a_gap(in_segments, signal):
    got = read_wfdb(in_segments, rate=100, max_gap=1.0)
    np.testing.assert_allclose(got[:, :400], signal[:, :400], **STEP)
    np.testing.assert_allclose(got[:, 500:], signal[:, 500:], **STEP)
    line = np.linspace(got[:, 399], got[:, 500], 102, axis=1)
    np.testing.assert_allclose(got[:, 399:501], line, atol=1e-5)
    np.testing.assert_allclose(read_wfdb(in_segments, rate=100, start=5.5, seconds=2), signal[:, 550:750], **STEP)
    with pytest.raises(UserError, match="100 samples that are not numbers, the first in lead I at 400"):
        read_wfdb(in_segments, rate=100)


def test_a_segment_that_leads_back_is_refused(tmp_path):
    (tmp_path / "m.hea").write_text("m/2 12 100 1000\nm 500\nm 500\n")
    with pytest.raises(UserError, match="a segment that has segments"):
        read_wfdb(tmp_path / "m", rate=100)


def test_headers_say_what_the_applications_of_wfdb_read_in_them(tmp_path):
    """Every optional field there or not, against the package."""
    np.arange(4000, dtype="<i2").tofile(tmp_path / "r.dat")
    lines = [
        "r.dat 16x2:3+24 12.5(-7)/uV 12 5 9 8 0 lead  I of two",
        "r.dat 16x2:3+24 1e3/mV 12 5 9 8 0 II",
        "r.dat 16x2:3+24 0 11 1024",
        "r.dat 16x2:3+24 .25(3)",
        "r.dat 16x2:3+24",
    ]
    text = f"r {len(lines)} 360.5/400(2) 300 12:30:05 01/02/1990\r\n# a\n\n" + "\n".join(lines)
    (tmp_path / "r.hea").write_text(text)
    theirs, ours = wfdb.rdheader(str(tmp_path / "r")), read_header(tmp_path / "r.hea", "it")
    assert (ours.rate, ours.frames, ours.count) == (theirs.fs, theirs.sig_len, theirs.n_sig)
    fields = {"file": "file_name", "fmt": "fmt", "frame": "samps_per_frame", "skew": "skew", "offset": "byte_offset",
              "gain": "adc_gain", "baseline": "baseline", "unit": "units"}  # fmt: skip
    for mine, their in fields.items():
        assert [getattr(s, mine) for s in ours.signals] == getattr(theirs, their), mine
    assert [s.name for s in ours.signals] == [n or "" for n in theirs.sig_name]
    (tmp_path / "s.hea").write_text("s 1")
    with pytest.raises(UserError, match="says 1 signals and describes 0"):
        read_header(tmp_path / "s.hea", "it")


def test_skewed_signals_are_set_right(tmp_path, rng):
    digital = rng.integers(-900, 900, (400, 2))
    digital.astype("<i2").tofile(tmp_path / "r.dat")
    path = write_header(tmp_path, "r", ["r.dat 16 1000/mV 16 0 0 0 0 I", "r.dat 16:5 1000/mV 16 0 0 0 0 II"],
                        rate=100, samples=400)  # fmt: skip
    got = read_wfdb(path, rate=100, leads=("I", "II"), max_gap=0.05)
    np.testing.assert_allclose(got[0], digital[:, 0] / 1000, rtol=1e-6)
    np.testing.assert_allclose(got[1, :395], digital[5:, 1] / 1000, rtol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_micro_sign_is_not_lost(tmp_path, encoding):
    np.full(50, 700, "<i2").tofile(tmp_path / "r.dat")
    text = "r 1 100 50\nr.dat 16 2/\u00b5V 16 0 0 0 0 I\n"
    (tmp_path / "r.hea").write_bytes(text.encode(encoding))
    np.testing.assert_allclose(read_wfdb(tmp_path / "r", rate=100, leads=("I",)), 0.35, rtol=1e-6)


def test_samples_marked_as_invalid_are_gaps(tmp_path):
    digital = np.arange(12 * 50).reshape(50, 12)
    digital[17, 8] = -32768
    digital.astype("<i2").tofile(tmp_path / "r.dat")
    path = write_header(tmp_path, "r", [f"r.dat 16 100/mV 16 0 0 0 0 {n}" for n in LEADS], rate=100, samples=50)
    with pytest.raises(UserError, match="1 samples that are not numbers, the first in lead V3 at 17"):
        read_wfdb(path, rate=100)
    np.testing.assert_allclose(read_wfdb(path, rate=100, max_gap=0.01)[8], (8 + 12 * np.arange(50)) / 100, rtol=1e-6)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.hea does not exist"):
        read_wfdb(tmp_path / "none", rate=100)


@pytest.mark.parametrize("keep", [0, 100])
def test_a_truncated_record_is_named(tmp_path, signal, keep):
    path = write_wfdb(tmp_path, "torn", signal)
    dat = path.with_suffix(".dat")
    dat.write_bytes(dat.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"torn\.hea claims 24000 bytes and torn.dat has {keep}"):
        read_wfdb(path, rate=100)


def test_a_header_without_samples_is_named(tmp_path, signal):
    path = write_wfdb(tmp_path, "lonely", signal)
    path.with_suffix(".dat").unlink()
    with pytest.raises(UserError, match=r"lonely\.dat does not exist"):
        read_wfdb(path, rate=100)


@pytest.mark.parametrize("name", ["../secret.dat", "/etc/passwd", "sub/secret.dat", "http://x/secret.dat", "link.dat"])
def test_signal_files_elsewhere_are_not_read(tmp_path, name):
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "secret.dat", folder / "sub" / "secret.dat"):
        np.zeros(5000, "<i2").tofile(place)
    (folder / "link.dat").symlink_to(tmp_path / "secret.dat")
    path = write_header(folder, "r", [f"{name} 16 1000/mV 16 0 0 0 0 I"])
    with pytest.raises(UserError, match=r"not in its folder|link out of its folder") as caught:
        read_wfdb(path, rate=100, leads=("I",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r 1 500 50", "r 1 500 5000000000000"),
        ("r 1 500 50", "r 1000000 500 50"),
        ("r 1 500 50", "r 1 0.0001 50"),
        ("r 1 500 50", f"r 1 500 {'9' * 900}"),
        ("r 1 500 50", "r/2 1 500 50"),
        ("r 1 500 50", ""),
        ("16 1000", "16x100000000 1000"),
        ("16 1000", "16:4000000000 1000"),
        ("16 1000", "16+99999999999999 1000"),
        ("16 1000", "17 1000"),
        ("16 1000", f"16 1{'0' * 400}"),
        ("r.dat", "r" * 2000),
        (" I\n", f" {'I' * 2**20}\n"),
    ],
)
def test_headers_that_claim_too_much_are_refused_in_one_line(tmp_path, old, new):
    np.zeros(50, "<i2").tofile(tmp_path / "r.dat")
    path = write_header(tmp_path, "r", ["r.dat 16 1000/mV 16 0 0 0 0 I"], samples=50)
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_wfdb(path, rate=100, leads=("I",))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_damaged_headers_and_samples_never_raise_anything_else(tmp_path, rng):
    path = write_matlab(tmp_path, "r", rng.integers(-500, 500, (12, 60)))
    originals = {p: p.read_bytes() for p in (path.with_suffix(".hea"), path.with_suffix(".mat"))}
    refused = 0
    for _ in range(150):
        for p, data in originals.items():
            changed = bytearray(data)
            for _ in range(rng.integers(1, 6)):
                changed[rng.integers(len(changed))] = rng.choice(np.frombuffer(b"0129/.- \n\x00~+x:e", np.uint8))
            p.write_bytes(bytes(changed[: rng.integers(1, len(changed) + 1)] if rng.random() < 0.2 else changed))
        try:
            assert read_wfdb(path, rate=500).shape[0] == 12
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 25
