"""EDF, EDF+ and BDF files as ECG arrays."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from medjax.config import build
from medjax.data.readers.ecg import MAX_SIGNALS, EcgOptions, Trace, assemble, check_rate, check_size
from medjax.data.readers.leads import canonical
from medjax.errors import UserError

_HEADER = 256  # bytes for the file, and as many for each signal


def read_edf(path: str | Path, **options: Any) -> np.ndarray:
    """float32[C, T]: the leads of an EDF, EDF+ or BDF file; see `EcgOptions` and the module `ecg`.

    Values are scaled from the digital to the physical range of each signal. Signals may differ in rate. Annotations are
    left out. A file whose header says another number of data records than it holds is refused (-1, a recording that
    was not closed, counts what is there), and so is a discontinuous one (EDF+D).

    Raises:
      UserError: a missing, truncated or damaged file, or an unusable lead.
    """
    chosen, path = build(EcgOptions, options, "ECG options"), Path(path)
    where = f"ECG {path}"
    if not path.is_file():
        raise UserError(f"{where} does not exist")
    try:
        bits24, seconds = _check_header(path)
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}") from None
    except (ValueError, ZeroDivisionError) as error:
        cause = str(error) if isinstance(error, UserError) else f"its header is damaged ({error})"
        raise UserError(f"{where} cannot be read: {cause}") from None
    try:
        import edfio
    except ImportError:
        raise UserError("reading EDF files needs the package edfio; pip install 'medjax[readers]'") from None
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a recording was not closed
            file = (edfio.read_bdf if bits24 else edfio.read_edf)(path, header_encoding="latin-1")
            traces = [_trace(s, chosen, seconds, where) for s in file.signals]
    except UserError:
        raise
    except Exception as error:  # edfio raises several types for damaged files
        text = " ".join(str(error).split())
        raise UserError(f"{where} cannot be read ({type(error).__name__}: {text:.200}); is it EDF?") from None
    return assemble(traces, chosen, where)


def _check_header(path: Path) -> tuple[bool, float]:
    """Whether samples have 24 bits, and the duration in seconds. Raises ValueError for fields that are no numbers."""
    with path.open("rb") as f:
        head = f.read(_HEADER)
        if len(head) < _HEADER:
            raise UserError(f"it has {len(head)} bytes, less than a header of EDF")
        bits24 = head[:8] == b"\xffBIOSEMI"
        if not bits24 and head[:8].strip() != b"0":
            raise UserError("it does not begin as EDF or BDF; is it another format?")
        if head[192:236].startswith((b"EDF+D", b"BDF+D")):
            raise UserError("it is discontinuous (EDF+D); split it at its interruptions")
        records, seconds, signals = int(head[236:244]), float(head[244:252]), int(head[252:256])
        if not 0 < signals <= MAX_SIGNALS or int(head[184:192]) != _HEADER * (signals + 1):
            raise UserError(
                f"it claims {signals} signals in a header of {head[184:192].decode('latin-1').strip()} bytes"
            )
        if not 0 < seconds <= 1e6:
            raise UserError(f"it claims data records of {seconds:g} seconds")
        fields = f.read(_HEADER * signals)[216 * signals : 224 * signals]
    each = [int(fields[8 * i : 8 * i + 8]) for i in range(signals)]
    if min(each) < 1:
        raise UserError(f"it claims {min(each)} samples of a signal in a data record")
    size, held = sum(each) * (3 if bits24 else 2), path.stat().st_size - _HEADER * (signals + 1)
    if records == -1:
        records = held // size
    if records < 1 or records * size != held:
        raise UserError(f"it claims {records} data records of {size} bytes and holds {held} bytes; is it complete?")
    check_size(signals, 4 * held // 3 if bits24 else 0, "it")  # edfio maps 16-bit files, and unpacks others whole
    return bits24, records * seconds


def _trace(signal, options: EcgOptions, seconds: float, where: str) -> Trace:
    name, rate = signal.label, signal.sampling_frequency
    if canonical(name) not in options.wanted():
        return Trace(name, "", rate, np.zeros(0))
    check_rate(rate, where)
    low, high = signal.physical_min, signal.physical_max
    if not np.isfinite([low, high]).all() or low == high or signal.digital_min == signal.digital_max:
        raise UserError(f"{where} has no range of values for {name!r}; it is damaged")
    start, stop = options.part(round(seconds * rate), rate)
    check_size(0, (stop - start) * len(options.wanted()), where)
    values = signal.get_data_slice(start / rate, stop / rate) if stop > start else np.zeros(0)
    return Trace(name, signal.physical_dimension, rate, values)
