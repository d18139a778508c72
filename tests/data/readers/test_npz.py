"""Arrays of .npz files are those that NumPy reads, row by row or whole, and nothing is taken at its word."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from medjax.data.readers.npz import open_arrays, read_array, read_row
from medjax.errors import UserError


def header(shape, dtype="|u1", order=False) -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(path, compression=zipfile.ZIP_STORED, **members: bytes):
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, data in members.items():
            z.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_that_were_saved(tmp_path, rng, save):
    arrays = {
        "pictures": rng.integers(0, 256, (9, 5, 6, 3), dtype=np.uint8),
        "values": rng.normal(size=(4, 2)),
        "fortran": np.asfortranarray(rng.normal(size=(3, 5)).astype(np.float32)),
        "flags": rng.random(7) > 0.5,
        "empty": np.zeros((0, 3), np.int64),
    }
    save(tmp_path / "a.npz", **arrays)
    found = open_arrays(tmp_path / "a.npz")
    assert {k: (a.shape, a.dtype) for k, a in found.items()} == {k: (v.shape, v.dtype) for k, v in arrays.items()}
    for name, values in arrays.items():
        np.testing.assert_array_equal(read_array(found[name]), values)
    for i in (3, 0, 8, 8, 1):  # onwards and back
        np.testing.assert_array_equal(read_row(found["pictures"], i), arrays["pictures"][i])
    with pytest.raises(UserError, match="Fortran order"):
        read_row(found["fortran"], 0)


def test_a_file_that_has_changed_is_read_anew(tmp_path):
    for value in (1, 2):
        np.savez(tmp_path / "a.npz", x=np.full((3, 2), value))
        (tmp_path / "a.npz").touch()
        assert read_row(open_arrays(tmp_path / "a.npz")["x"], 2).tolist() == [value, value]


class Trap:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header((10**6, 10**6)) + bytes(100), "claims 1000000000000 bytes of numbers and has 100"),
        (header((4, -5)) + bytes(20), "claims -20 bytes"),
        (header((5, 5)) + bytes(24), "claims 25 bytes of numbers and has 24"),
        (header((5,)) + bytes(6), "claims 5 bytes of numbers and has 6"),
        (header((1,), "|O") + pickle.dumps(Trap()), "not numbers"),
        (header((2,), "<U3") + bytes(24), "not numbers"),
        (header("(1,), 'x': __import__('os')"), "no .npz of plain arrays"),
        (b"\x93NUMPY\x09\x00" + bytes(90), "array format"),
        (b"no array", "no .npz of plain arrays"),
        (b"", "no .npz of plain arrays"),
    ],
)
def test_headers_are_checked_before_memory_is_taken(tmp_path, data, message):
    with pytest.raises(UserError, match=message) as caught:
        open_arrays(archive(tmp_path / "a.npz", x=data))
    assert "a.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_a_size_that_no_compression_explains_is_refused(tmp_path):
    path = archive(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, x=header((10**6,)) + bytes(10**6))
    data = path.read_bytes()
    size = (len(header((10**6,))) + 10**6).to_bytes(4, "little")
    assert data.count(size) == 2  # in the member's own header and in the directory
    path.write_bytes(data.replace(size, (2**31).to_bytes(4, "little")))
    with pytest.raises(UserError, match="claims 2147483648 bytes and has"):
        open_arrays(path)


def test_damaged_data_is_named_and_does_not_spoil_what_follows(tmp_path, rng):
    values = rng.integers(0, 256, (40, 500), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=values)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    at = data.index(values[39].tobytes())
    data[at] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    array = open_arrays(tmp_path / "a.npz")["x"]
    with pytest.raises(UserError, match=r"a\.npz is no \.npz of plain arrays: Bad CRC-32"):
        read_array(array)
    np.testing.assert_array_equal(read_row(array, 5), values[5])


def test_files_that_are_no_archive_are_named(tmp_path):
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    for data in (b"", b"PK\x03\x04 torn", out.getvalue()):
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(UserError, match=r"a\.npz is no \.npz"):
            open_arrays(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        open_arrays(tmp_path / "none.npz")


def test_real_pictures_are_those_that_numpy_reads(test_data):
    path = test_data / "cxr_pneumoniamnist" / "pneumoniamnist_dev.npz"
    found = open_arrays(path)
    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
    np.testing.assert_array_equal(read_array(found["train_labels"]), labels)
    for i in range(0, len(images), 97):
        np.testing.assert_array_equal(read_row(found["train_images"], i), images[i])
