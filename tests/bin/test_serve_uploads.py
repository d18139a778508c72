"""Uploads become the raw inputs that the readers make of the same files, and everything else is refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

from medjax.bin.serve_uploads import read_uploads
from medjax.data.manifest import Modality
from medjax.errors import UserError

LEADS = ("I", "II", "V1")
SCHEMAS = {
    "xray": Modality("image"),
    "ecg": Modality("ecg", LEADS, ("mV",) * 3, 100.0),
    "text": Modality("text"),
}


@pytest.fixture
def signal(rng) -> np.ndarray:
    return rng.integers(-500, 500, (3, 200)) / 500.0  # mV, whole steps of the WFDB record


def wfdb(signal, name="rec") -> list[tuple[str, bytes]]:
    lines = [f"{name} 3 100 {signal.shape[1]}"]
    lines += [f"{name}.dat 16 500(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    samples = np.round(signal.T * 500).astype("<i2").tobytes()
    return [(f"{name}.hea", "\n".join(lines).encode() + b"\n"), (f"{name}.dat", samples)]


def npz(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def csv(header: str, rows: np.ndarray) -> bytes:
    return "\n".join([header, *(",".join(f"{x:.6f}" for x in row) for row in rows)]).encode()


def picture(kind: str, pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("turned", [False, True])
def test_a_wfdb_pair_is_one_ecg_in_whatever_order(signal, turned):
    files = wfdb(signal)[:: -1 if turned else 1]
    np.testing.assert_allclose(read_uploads(files, SCHEMAS)["ecg"], signal, atol=1e-6)


def test_an_npz_is_in_millivolt_at_the_rate_it_says(signal):
    found = read_uploads([("a.npz", npz(x=signal))], SCHEMAS)["ecg"]
    np.testing.assert_allclose(found, signal, atol=1e-6)
    assert read_uploads([("a.npz", npz(x=signal, rate=200.0))], SCHEMAS)["ecg"].shape == (3, 100)


def test_a_csv_is_in_millivolt_unless_it_says_otherwise(signal):
    for header, rows in (
        ("I,II,V1", signal.T),
        ("I (uV),II (uV),V1 (uV)", signal.T * 1000),
        ("time (ms),I,II,V1", np.column_stack([np.arange(200) * 10, signal.T])),
    ):
        found = read_uploads([("a.csv", csv(header, rows))], SCHEMAS)["ecg"]
        np.testing.assert_allclose(found, signal, atol=1e-5)
    slow = csv("Time,I,II,V1", np.column_stack([np.arange(200) / 50, signal.T]))
    assert read_uploads([("a.csv", slow)], SCHEMAS)["ecg"].shape == (3, 400)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_picture_is_known_by_its_first_bytes(rng, kind):
    pixels = rng.integers(0, 255, (9, 7), dtype=np.uint8)
    found = read_uploads([("whatever", picture(kind, pixels))], SCHEMAS)["xray"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found))), pixels)


def test_dicom_is_a_picture(rng, tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import write

    pixels = rng.integers(0, 4096, (9, 7), dtype=np.uint16)
    content = write(tmp_path / "x.dcm", pixels).read_bytes()
    found = read_uploads([("x.bin", content)], SCHEMAS)["xray"]
    assert Image.open(io.BytesIO(found)).size == (7, 9)


def test_picture_and_ecg_may_come_together(signal, rng):
    files = [*wfdb(signal), ("x.png", picture("PNG", rng.integers(0, 255, (9, 7), dtype=np.uint8)))]
    assert read_uploads(files, SCHEMAS).keys() == {"xray", "ecg"}


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", ".hea", "a/b.png", "a\\b.png", "", "a\0.png", "é.png", "x" * 101]
)
def test_names_that_could_leave_the_folder_are_refused(name):
    with pytest.raises(UserError, match="a name that is not taken"):
        read_uploads([(name, b"x")], SCHEMAS)


def test_a_header_that_names_a_file_elsewhere_is_refused(signal, tmp_path):
    (_, header), (_, samples) = wfdb(signal)
    (tmp_path / "secret.dat").write_bytes(samples)
    for where in (f"{tmp_path}/secret.dat", f"../{tmp_path.name}/secret.dat"):
        with pytest.raises(UserError, match=r"rec\.hea"):
            read_uploads([("rec.hea", header.replace(b"rec.dat", where.encode()))], SCHEMAS)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ([("a.png", b"")], "a.png is empty"),
        ([("a.txt", b"hello")], "a.txt is of no type that is taken; send a picture"),
        ([("a.dat", b"hello")], "send the .hea file with it"),
        ([("a.png", b"\x89PNG\r\n\x1a\nxx")], "image a.png: "),
        ([("a.nii", bytes(344) + b"n+1\0")], "a.nii is of no type"),
        ([("a.npz", b"PK\x03\x04broken")], "a.npz is no .npz"),
        ([("a.npz", npz(x=np.zeros((2, 9))))], r"must hold one array \[3, T\]"),
        ([("a.npz", npz(x=np.zeros((3, 9)), y=np.zeros(3)))], r"must hold one array \[3, T\]"),
        ([("a.npz", npz(x=np.full((3, 9), np.nan)))], "not numbers"),
        ([("a.npz", npz(x=np.zeros((3, 9)), rate=0.0))], "samples per second"),
        ([("a.npz", npz(x=np.zeros((3, 9)), rate=np.inf))], "samples per second"),
        ([("a.npz", npz(x=np.array([["a"]])))], "not numbers"),
        ([("a.csv", b"I,II\n0,0\n")], "lacks lead V1"),
        ([("a.csv", b"\xff\xfe\n")], "ECG a.csv"),
        ([("a.csv", b"I,II,V1\n0,0,x\n")], "line 2"),
        ([("rec.hea", b"rec 3 100 200\n")], "rec.hea"),
    ],
)
def test_what_cannot_be_read_is_named_without_the_folder(files, match):
    with pytest.raises(UserError, match=match) as caught:
        read_uploads(files, SCHEMAS)
    assert "medjax-serve-" not in str(caught.value)


def test_one_of_each_modality_and_each_name_once(signal):
    with pytest.raises(UserError, match="second ecg"):
        read_uploads([("a.npz", npz(x=signal)), ("b.npz", npz(x=signal))], SCHEMAS)
    with pytest.raises(UserError, match="sent twice"):
        read_uploads([("a.npz", npz(x=signal))] * 2, SCHEMAS)
    with pytest.raises(UserError, match="this encoder takes none"):
        read_uploads([("a.npz", npz(x=signal))], {"xray": Modality("image")})
