"""What readers of volumes share: bytes from plain or gzip files within limits, and voxels in a type that is stored."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medjax.errors import UserError

MAX_BYTES = 1 << 32
_GZIP_RATIO = 1032  # DEFLATE makes at most 1032 bytes of one
_PIECE = 1 << 24
_OUTSIDE = 1e30


@contextmanager
def guarded(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a format's library raises for a damaged file into a UserError that names file and kind."""
    try:
        yield
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise UserError(f"{kind} file {path} does not exist") from None
    except Exception as error:
        raise UserError(f"{path} cannot be read as {kind} ({type(error).__name__}: {error}); is it damaged?") from None


def stream(file: BinaryIO, compressed: bool) -> BinaryIO:
    """The bytes of an open file from where it stands, as they are or out of gzip."""
    return gzip.GzipFile(fileobj=file, mode="rb") if compressed else file


def check_claim(claimed: int, path: Path, compressed: bool) -> None:
    """Raises UserError where a file cannot hold the bytes that its header claims, or should not be read at all."""
    held = path.stat().st_size
    if not 0 < claimed <= MAX_BYTES:
        raise UserError(f"{path} claims {claimed} bytes of voxels; medjax reads 1 to {MAX_BYTES}")
    if claimed > held * (_GZIP_RATIO if compressed else 1):
        raise UserError(f"{path} claims {claimed} bytes of voxels and has {held}; it is cut off or damaged")


def read_exactly(source: BinaryIO, count: int, path: Path, last: bool = False) -> np.ndarray:
    """uint8[count]. last: nothing is needed after it; gzip then compares its checksum, if nothing follows.

    Raises:
      UserError: there are fewer, or the compressed data is damaged.
    """
    out = np.empty(count, np.uint8)
    view, done = memoryview(out), 0
    try:
        while done < count:
            got = source.readinto(view[done : done + _PIECE])
            if not got:
                raise UserError(f"{path} ends after {done} of {count} bytes; it is cut off")
            done += got
        if last:
            source.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); it is damaged or cut off") from None
    return out


def storable(values: np.ndarray) -> np.ndarray:
    """Voxels as int16, uint8, uint16 or float32.

    uint8 and uint16 stay. Whole numbers within int16 become int16, whatever their type was, and all else float32.
    Voxels that are no numbers or beyond +-1e30, as some tools write outside the field of view, become the smallest of
    the others.

    Raises:
      UserError: no voxel is finite.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.name in ("uint8", "uint16", "int16"):
        return values
    if values.dtype.kind not in "iuf":
        raise UserError(f"voxels of type {values.dtype} are not read; save them as integers or float32")
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.abs(values) < _OUTSIDE
            values = values.astype(np.float32, copy=False)
        if not finite.any():
            raise UserError("no voxel is a finite number")
        if not finite.all():
            values = np.where(finite, values, values[finite].min())
    low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    if values.min() >= low and values.max() <= high:
        whole = values.astype(np.int16)
        if values.dtype.kind != "f" or np.array_equal(whole, values):
            return whole
    return values.astype(np.float32, copy=False)
