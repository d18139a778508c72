"""Arrays in .npz files: headers are checked against the file before memory is taken, and rows are read one by one."""

import math
import threading
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from medjax.errors import UserError

MAX_ARRAY = 2**31  # bytes of an array that is read whole, or of one row
_DEFLATE_RATIO = 1040  # no deflate stream grows more than 1032 times
_DEFLATE_SLACK = 1024
_PIECE = 2**20
_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, KeyError)


@dataclass(frozen=True)
class Array:
    """What the header of an array in a file says; it was checked that the file can hold as much."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def row_bytes(self) -> int:
        """Of `array[i]`."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def open_arrays(path: str | Path) -> dict[str, Array]:
    """The arrays of an .npz file, of which only the headers are read.

    Raises:
      UserError: the file is missing, no .npz, encrypted, or an array in it is pickled or claims more than its share of
        the file can hold.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _check(path, archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
    except UserError:
        raise
    except _ERRORS as error:
        raise _unreadable(path, error) from None


def read_array(array: Array) -> np.ndarray:
    """The whole array.

    Raises:
      UserError: it takes more than 2 GiB, or its data is damaged.
    """
    count = math.prod(array.shape) * array.dtype.itemsize
    with _opened(array, count) as cursor:
        values = np.frombuffer(cursor.read(0, count), array.dtype)
        cursor.finish()
    return values.reshape(array.shape, order="F" if array.fortran else "C")


def read_row(array: Array, i: int) -> np.ndarray:
    """`array[i]`. Rows in rising order are read in one pass over the file, in each process.

    Raises:
      UserError: the row takes more than 2 GiB, the array is in Fortran order, or its data is damaged.
    """
    if array.fortran and len(array.shape) > 1:
        raise UserError(f"{array.path}: {array.name} is in Fortran order; save it again with np.ascontiguousarray")
    with _opened(array, array.row_bytes) as cursor:
        data = cursor.read(i * array.row_bytes, array.row_bytes)
    return np.frombuffer(data, array.dtype).reshape(array.shape[1:])


def _check(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    name = info.filename.removesuffix(".npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{path}: {name} is compressed in an unusual way; save it again with np.savez_compressed")
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
    if info.file_size > min(info.compress_size, path.stat().st_size) * ratio + _DEFLATE_SLACK:
        raise UserError(f"{path}: {name} claims {info.file_size} bytes and has {info.compress_size}; it is damaged")
    with archive.open(info) as stream:
        shape, fortran, dtype, start = _header(stream)
    if dtype.kind not in "biuf":
        raise UserError(f"{path} is no .npz of plain arrays: {name} has the type {str(dtype)[:40]}, not numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or start + claimed != info.file_size:
        raise UserError(f"{path}: {name} claims {claimed} bytes of numbers and has {info.file_size - start}")
    return Array(path, name, shape, dtype, fortran)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, type and length of the header; NumPy's parser evaluates nothing and makes no array."""
    version = np.lib.format.read_magic(stream)
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"array format {version} is not known")
    shape, fortran, dtype = readers[version](stream)
    return shape, fortran, dtype, stream.tell()


class _Cursor:
    """A place in an array's data. What is compressed can only be read onwards."""

    def __init__(self, array: Array):
        self.array, self.lock = array, threading.Lock()
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> "_Cursor":
        self.lock.acquire()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _) -> None:
        if kind is not None:
            self._archive = None  # start over after damage
        self.lock.release()
        if isinstance(error, _ERRORS) and not isinstance(error, UserError):
            raise _unreadable(self.array.path, error) from None

    def read(self, at: int, count: int) -> bytes:
        """The bytes [at, at + count) of the data."""
        if self._archive is None or at < self._at:
            self._archive = zipfile.ZipFile(self.array.path)
            self._stream = self._archive.open(f"{self.array.name}.npy")
            _header(self._stream)
            self._at = 0
        while self._at < at:
            self._take(min(_PIECE, at - self._at))
        return self._take(count)

    def finish(self) -> None:
        """Reads on to the end, where the archive compares its checksum."""
        self._stream.read(1)

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise EOFError(f"{self.array.name} is cut off")
        self._at += count
        return data


def _opened(array: Array, count: int) -> _Cursor:
    if count > MAX_ARRAY:
        raise UserError(f"{array.path}: {array.name} takes {count} bytes at once; the limit is {MAX_ARRAY}")
    return _cursor(array, array.path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _cursor(array: Array, changed: int) -> _Cursor:
    return _Cursor(array)


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{path} is no .npz of plain arrays: {reason}")
