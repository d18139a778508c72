"""DICOM files as pydicom data sets: bounded, quiet, and with errors that never quote what an element holds."""

import io
import logging
import math
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medjax.errors import UserError

MAX_BYTES = 2**31
MAX_INFLATED = 2**29
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PREFIX_END = 132
# Filters of warnings belong to the process, and a decoder may need many times the size of its file: one at a time.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def guarded(path: Path, what: str = "DICOM") -> Iterator[None]:
    """Names the file in every UserError raised inside, and turns every other exception into one.

    pydicom's warnings and messages quote elements, which may be names: neither is shown.
    """
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError as error:
        raise UserError(f"{what} {path}: {error}") from None
    except Exception as error:  # pydicom and its plugins raise many types for damaged files
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{what} {path} cannot be read: {error.strerror}") from None
        raise UserError(f"{what} {path} is damaged ({type(error).__name__}); copy it again or remove it") from None


def load(path: Path, pixels: bool = True) -> Any:
    """The pydicom data set of a file; without `pixels` it ends before them. Call it under `guarded`.

    Raises:
      UserError: the file is missing, too large, or lacks the prefix of DICOM.
    """
    try:
        import pydicom
    except ImportError:
        raise UserError("reading DICOM needs the package pydicom; pip install 'medjax[readers]'") from None
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    if not path.is_file():
        raise UserError("there is no such file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"it has {size} bytes, the limit is {MAX_BYTES}; split it")
    data = path.read_bytes()  # from memory no read can claim more than there is
    if data[_PREFIX_END - 4 : _PREFIX_END] != b"DICM":
        raise UserError("it is no DICOM file (the letters DICM are missing); convert or remove it")
    if _DEFLATED.encode() in data[:4096]:
        _check_inflated(data)
    return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels, force=False)


def _check_inflated(data: bytes) -> None:
    """A deflated file of a megabyte may hold a gigabyte, and pydicom would inflate it all."""
    from pydicom.filereader import read_dataset

    stream = io.BytesIO(data)
    stream.seek(_PREFIX_END)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != _DEFLATED:
        return
    inflater, rest, total = zlib.decompressobj(-zlib.MAX_WBITS), stream.read(), 0
    while rest and not inflater.eof:
        total += len(inflater.decompress(rest, 2**20))
        rest = inflater.unconsumed_tail
        if total > MAX_INFLATED:
            raise UserError(f"it inflates to more than {MAX_INFLATED} bytes; convert it to another transfer syntax")


def element(dataset: Any, keyword: str) -> Any:
    """The value of an element; None where it is missing or empty.

    Raises:
      UserError: the value is not of the element's type.
    """
    try:
        value = dataset.get(keyword)
    except Exception:  # values are converted when they are asked for
        raise UserError(f"its element {keyword} is damaged; correct or remove the file") from None
    return None if isinstance(value, str | bytes) and not value.strip() else value


def numbers(dataset: Any, keyword: str, count: int | None = None) -> tuple[float, ...]:
    """The finite numbers that an element holds; () where it is missing or empty.

    Raises:
      UserError: one is no number, or there are not `count` of them.
    """
    value = element(dataset, keyword)
    if value is None:
        return ()
    try:
        values = tuple(float(v) for v in ([value] if isinstance(value, str | bytes | int | float) else value))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"its element {keyword} holds no number; correct or remove the file") from None
    if not all(map(math.isfinite, values)) or (values and count is not None and len(values) != count):
        expected = "finite numbers" if count is None else f"{count} finite number{'s' * (count > 1)}"
        raise UserError(f"its element {keyword} must hold {expected}; correct or remove the file")
    return values


def number(dataset: Any, keyword: str, default: float | None = None) -> float | None:
    """The one number that an element holds. Raises UserError as `numbers`."""
    values = numbers(dataset, keyword, 1)
    return values[0] if values else default


def whole(dataset: Any, keyword: str, low: int, high: int, default: int | None = None) -> int:
    """The whole number that an element holds.

    Raises:
      UserError: it is missing and there is no default, or it is not within low..high.
    """
    value = number(dataset, keyword, default)
    if value is None:
        raise UserError(f"its element {keyword} is missing; it holds no image, or is damaged")
    if value != int(value) or not low <= value <= high:
        raise UserError(f"its element {keyword} is {value:g}, not a whole number in {low}..{high}")
    return int(value)


def codes(dataset: Any, keyword: str) -> tuple[str, ...]:
    """The code strings that an element holds, in upper case; () where it is missing."""
    value = element(dataset, keyword)
    if value is None:
        return ()
    return tuple(str(v).strip().upper() for v in ([value] if isinstance(value, str) else value))


def code(dataset: Any, keyword: str) -> str:
    """The first code string that an element holds; "" where it is missing."""
    return next(iter(codes(dataset, keyword)), "")


def items(dataset: Any, keyword: str) -> list[Any]:
    """The items of a sequence; [] where it is missing.

    Raises:
      UserError: the element is no sequence.
    """
    from pydicom.sequence import Sequence

    value = element(dataset, keyword)
    if not isinstance(value, Sequence | None):
        raise UserError(f"its element {keyword} is no sequence; correct or remove the file")
    return list(value or ())


def macro(dataset: Any, keyword: str, frame: int) -> Any:
    """Where the attributes of a functional group of a frame stand: the frame's own item, the shared one, else the
    data set itself, as in files that are not enhanced (PS3.3 C.7.6.16).
    """
    from pydicom.sequence import Sequence

    groups = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    per_frame = element(dataset, "PerFrameFunctionalGroupsSequence")
    if isinstance(per_frame, Sequence) and frame < len(per_frame):
        groups.insert(0, per_frame[frame])
    return next((found[0] for group in groups if (found := items(group, keyword))), dataset)
