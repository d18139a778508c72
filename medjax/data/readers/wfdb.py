"""WFDB records (PhysioNet), also those whose samples are in MATLAB v4 files, as ECG arrays."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from medjax.config import build
from medjax.data.readers.ecg import EcgOptions, Trace, assemble, check_size
from medjax.data.readers.leads import canonical
from medjax.data.readers.wfdb_header import BYTES, Header, read_header
from medjax.errors import UserError

_INVALID_16 = -32768


def read_wfdb(path: str | Path, **options: Any) -> np.ndarray:
    """float32[C, T]: a record by its path, with or without ".hea"; see `EcgOptions` and the module `ecg`.

    Every format of samples, gain and baseline per signal, several samples a frame, skew and several segments are read.
    A signal file is looked for beside its header only. Samples that the format marks as invalid are gaps, and so is
    what a segment lacks.

    Raises:
      UserError: a missing, truncated or damaged file, one that claims more than it holds, or an unusable lead.
    """
    chosen = build(EcgOptions, options, "ECG options")
    file = Path(f"{str(path).removesuffix('.hea')}.hea")
    where = f"ECG {file}"
    try:
        header = read_header(file, where)
        traces = (_segments if header.segments else _signals)(file, header, chosen, where)
    except (OSError, RuntimeError) as error:  # a loop of links is the latter up to Python 3.12
        raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return assemble(traces, chosen, where)


def _signals(file: Path, header: Header, options: EcgOptions, where: str, whole: bool = False) -> list[Trace]:
    """The signals that are wanted with their samples, the others without."""
    length, wanted = _length(file, header, where), options.wanted()
    channels = [i for i, s in enumerate(header.signals) if canonical(s.name) in wanted]
    # Differences (format 8) add up from the start of the file.
    whole = whole or any(s.fmt == "8" for s in header.signals)
    start, stop = (0, length) if whole else options.part(length, header.rate)
    if start >= stop:
        raise UserError(f"{where} has no samples" + (f" from {options.start:g} s on" if length else ""))
    check_size(len(header.signals), (stop - start) * sum(s.frame for s in header.signals), where)
    simple = all(s.fmt == "16" and not s.skew for s in header.signals)
    samples = (_read16 if simple else _read_others)(file, header, channels, start, stop, where) if channels else {}
    empty = np.zeros(0)
    return [Trace(s.name, s.unit, header.rate * s.frame, samples.get(i, empty)) for i, s in enumerate(header.signals)]


def _length(file: Path, header: Header, where: str) -> int:
    """The length in frames, once every signal file is beside the header and holds what that claims."""
    lengths = []
    for name in dict.fromkeys(s.file for s in header.signals):
        here, signals = file.parent / name, [s for s in header.signals if s.file == name]
        if here.resolve().parent != file.parent.resolve():
            raise UserError(f"{where} names the signal file {name!r}, a link out of its folder; put the file there")
        if not here.is_file():
            raise UserError(f"{where} cannot be read: its signal file {name} does not exist; is the record complete?")
        if len({s.fmt for s in signals}) > 1:
            raise UserError(f"{where} says several formats of one file, {name}; it is damaged")
        each = BYTES[signals[0].fmt]
        if each is None:
            lengths.append(header.frames)
            continue
        frame, offset, held = each * sum(s.frame for s in signals), signals[0].offset, here.stat().st_size
        claimed = math.ceil(header.frames * frame) + offset
        if claimed > held:
            raise UserError(f"{where} claims {claimed} bytes and {name} has {held}; is the record complete?")
        lengths.append(header.frames or int((held - offset) / frame))
    if max(s.skew for s in header.signals) > min(lengths):
        raise UserError(f"{where} has signals skewed by more than their length; it is damaged")
    return min(lengths)


def _read16(file: Path, header: Header, channels: list[int], start: int, stop: int, where: str):
    """`{signal: float64[T]}` of 16-bit samples, the format of nearly all archives; the package wfdb would read the
    header once more, which takes longer than all the rest."""
    out = {}
    for name in dict.fromkeys(header.signals[i].file for i in channels):
        signals = {i: s for i, s in enumerate(header.signals) if s.file == name}
        frame, at = sum(s.frame for s in signals.values()), 0
        first = next(iter(signals.values())).offset + 2 * start * frame
        digital = np.fromfile(file.parent / name, "<i2", (stop - start) * frame, offset=first).reshape(-1, frame)
        for i, s in signals.items():
            if i in channels:
                x = digital[:, at : at + s.frame].reshape(-1)
                out[i] = np.where(x == _INVALID_16, np.nan, (x.astype(np.float64) - s.baseline) / s.gain)
            at += s.frame
    return out


def _read_others(file: Path, header: Header, channels: list[int], start: int, stop: int, where: str):
    """`{signal: float64[T]}` of any format, by the package wfdb."""
    try:
        import wfdb
    except ImportError:
        raise UserError("reading WFDB records needs the package wfdb; pip install 'medjax[readers]'") from None
    path = str(file.absolute()).removesuffix(".hea")
    if "::" in path:
        raise UserError(f"{where} has '::' in its path, which wfdb takes for an address; rename the folder")
    try:
        with np.errstate(all="ignore"):
            record = wfdb.rdrecord(path, start, stop, channels, smooth_frames=False)
        found = [np.asarray(x, np.float64) for x in record.e_p_signal]
    except Exception as error:  # wfdb raises many types for damaged files
        text = " ".join(str(error).split())
        raise UserError(f"{where} cannot be read ({type(error).__name__}: {text:.200}); is it damaged?") from None
    return dict(zip(channels, found, strict=True))


def _segments(file: Path, header: Header, options: EcgOptions, where: str) -> list[Trace]:
    """The segments one after the other, NaN where one is empty or lacks a signal."""
    part = options.part(sum(frames for _, frames in header.segments), header.rate)
    check_size(header.count, (part[1] - part[0]) * header.count, where)
    out: dict[str, Trace] = {}
    at = 0
    for name, frames in header.segments:
        if name != "~" and frames and at < part[1] and at + frames > part[0]:
            one = file.parent / f"{name}.hea"
            inner = read_header(one, f"ECG {one}")
            if inner.segments:
                raise UserError(f"ECG {one} is a segment that has segments; medjax reads records of one level")
            for trace in _signals(one, inner, options, f"ECG {one}", whole=True):
                if len(trace.values):
                    _place(out, trace, header.rate, part, (at, at + frames), where)
        at += frames
    return list(out.values())


def _place(out: dict[str, Trace], trace: Trace, rate: float, part, segment, where: str) -> None:
    """Writes the samples of a segment where they belong in the part of the record that is read."""
    frame = round(trace.rate / rate)
    if trace.rate != frame * rate:
        raise UserError(f"{where} has segments of different rates; medjax reads records of one")
    if trace.name not in out:
        check_size(len(out), (len(out) + 1) * (part[1] - part[0]) * frame, where)
        out[trace.name] = Trace(trace.name, trace.unit, trace.rate, np.full((part[1] - part[0]) * frame, np.nan))
    whole = out[trace.name]
    if (whole.unit, whole.rate) != (trace.unit, trace.rate):
        raise UserError(f"{where} has segments that differ in the unit or rate of {trace.name}")
    first, stop = max(part[0], segment[0]), min(part[1], segment[1])
    values = trace.values[(first - segment[0]) * frame : (stop - segment[0]) * frame]
    whole.values[(first - part[0]) * frame :][: len(values)] = values
