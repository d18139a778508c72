"""Headers of WFDB records (header(5) of the WFDB applications), read strictly and within bounds.

The package wfdb reads them too, at 10 ms each, which is longer than all the rest; it drops the sign of a micro from a
unit; and it lets numbers through that cannot be.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from medjax.data.readers.ecg import MAX_SAMPLES, check_rate, check_size
from medjax.errors import UserError

_MAX_BYTES, _MAX_LINE, _MAX_SEGMENTS, _MAX_NUMBER = 2**20, 1024, 4096, 2**31
# Bytes of a sample by format; None for FLAC, whose length only its decoder knows.
BYTES = {"8": 1, "16": 2, "24": 3, "32": 4, "61": 2, "80": 1, "160": 2, "212": 1.5, "310": 4 / 3, "311": 4 / 3,
         "508": None, "516": None, "524": None}  # fmt: skip
_RECORD = re.compile(r"([-\w]+)(?:/(\d+))?\s+(\d+)(?:\s+(\d+\.?\d*(?:e[-+]?\d+)?)(?:/\S*)?(?:\s+(\d+)(?:\s.*)?)?)?")
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN = re.compile(r"(-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:\((-?\d+)\))?(?:/(\S+))?")


@dataclass(frozen=True)
class Signal:
    """file: its name. fmt: a key of `BYTES`. frame: samples a frame. skew: in frames. offset: bytes before the first
    sample. A sample x is (x - baseline) / gain in `unit`."""

    file: str
    fmt: str
    frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    unit: str
    name: str


@dataclass(frozen=True)
class Header:
    """rate: frames per second. frames: 0 where the header does not say. segments: (name, frames) each, "~" for a gap;
    a record has these or signals."""

    rate: float
    frames: int
    count: int
    signals: tuple[Signal, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()


def read_header(file: Path, where: str) -> Header:
    """Reads a .hea file; `where` is how errors call it.

    Raises:
      UserError: it is missing, or no such header, or claims what cannot be.
    """
    if not file.is_file():
        raise UserError(f"{where} does not exist")
    if file.stat().st_size > _MAX_BYTES:
        raise UserError(f"{where} has {file.stat().st_size} bytes, which no header has")
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if "\0" in text or any(len(line) > _MAX_LINE for line in lines):
        raise UserError(f"{where} has a NUL or a line of more than {_MAX_LINE} characters; it is damaged")
    try:
        header = _parse(lines, where)
    except (ValueError, IndexError) as error:
        cause = str(error) if isinstance(error, UserError) else f"{where} is no WFDB header or damaged"
        raise UserError(cause) from None
    check_rate(header.rate, where)
    return header


def _parse(lines: list[str], where: str) -> Header:
    match = _RECORD.fullmatch(lines[0])
    if not match:
        raise UserError(f"{where} does not begin with the name of a record and the number of its signals")
    _, segments, count, rate, frames = match.groups()
    count, frames, rate = _number(count), _number(frames or "0"), float(rate or 250)
    check_size(count, 0, where)
    if segments is not None:
        return Header(rate, frames, count, segments=_segments(lines[1:], _number(segments), where))
    if not count or len(lines) <= count:
        raise UserError(f"{where} says {count} signals and describes {len(lines) - 1}")
    return Header(rate, frames, count, tuple(_signal(line, rate, where) for line in lines[1 : count + 1]))


def _segments(lines: list[str], count: int, where: str) -> tuple[tuple[str, int], ...]:
    if count > _MAX_SEGMENTS or len(lines) < count:
        raise UserError(f"{where} says {count} segments and describes {len(lines)}; at most {_MAX_SEGMENTS} are read")
    found = tuple((name, _number(frames)) for name, frames, *_ in map(str.split, lines[:count]))
    if bad := next((name for name, _ in found if name != "~" and Path(name).name != name), None):
        raise UserError(f"{where} names the segment {bad!r}, which is not in its folder; move it there")
    return found


def _signal(line: str, rate: float, where: str) -> Signal:
    file, coded, *rest = line.split(maxsplit=8)  # gain, resolution, zero, first sample, checksum, block, name
    match = _FORMAT.fullmatch(coded)
    if not match or match[1] not in BYTES:
        raise UserError(f"{where} has signals of format {coded[:20]}; known are {', '.join(BYTES)}")
    frame, skew, offset = _number(match[2] or "1"), _number(match[3] or "0"), _number(match[4] or "0")
    if Path(file).name != file or file == "~":
        raise UserError(f"{where} names the signal file {file!r}, which is not in its folder; move it there")
    given = _GAIN.fullmatch(rest[0]) if rest else None
    if rest and not given:
        raise UserError(f"{where} has the gain {rest[0][:20]!r}, which is no number and unit")
    gain, baseline, unit = given.groups() if given else (None, None, None)
    gain = float(gain or 0) or 200.0  # as the format defines for 0 and for none
    zero = _number(rest[2]) if len(rest) > 2 else 0
    check_rate(rate * frame, where)
    if not math.isfinite(gain) or not math.isfinite(1 / gain) or frame < 1 or max(skew, frame) > MAX_SAMPLES:
        raise UserError(f"{where} has a gain, skew or frame that cannot be; it is damaged")
    baseline = zero if baseline is None else _number(baseline)
    return Signal(file, match[1], frame, skew, offset, gain, baseline, unit or "mV", rest[6] if len(rest) > 6 else "")


def _number(text: str) -> int:
    """Raises ValueError for what is no whole number, or beyond 32 bits."""
    value = int(text) if len(text) < 16 else _MAX_NUMBER + 1
    if abs(value) > _MAX_NUMBER:
        raise ValueError(text)
    return value
