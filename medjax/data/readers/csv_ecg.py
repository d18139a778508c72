"""ECGs in CSV files, a column a lead."""

import csv
import gzip
import math
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medjax.config import build
from medjax.data.readers.ecg import MAX_SAMPLES, EcgOptions, Trace, assemble, check_rate, check_size
from medjax.data.readers.leads import canonical
from medjax.data.readers.table import number
from medjax.errors import UserError

_MAX_BYTES = 2**27  # an hour of twelve leads at 250 Hz
_MAX_LINE = 2**16
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}
_UNIT_OF_NAME = re.compile(r"([^()\[\]]*)[(\[]([^()\[\]]*)[)\]]\s*")


@dataclass(frozen=True)
class CsvEcgOptions(EcgOptions):
    """file_rate: samples per second of the file, where no column tells the time. time: the column that does, in
    time_unit; its steps must be equal. columns: names of the columns of a file without a header. delimiter: between
    cells. The unit of a lead stands behind its name, as in "V1 (uV)", or is given by `unit`.
    """

    file_rate: float = 0.0
    time: str = ""
    time_unit: Literal["s", "ms", "us"] = "s"
    columns: tuple[str, ...] = ()
    delimiter: str = ","

    def __post_init__(self):
        super().__post_init__()
        if not self.file_rate and not self.time:
            raise UserError("an ECG in CSV needs file_rate (samples per second) or time (the column that tells it)")
        if len(self.delimiter) != 1:
            raise UserError(f"the delimiter of an ECG in CSV is one character, got {self.delimiter!r}")


def read_csv_ecg(path: str | Path, **options: Any) -> np.ndarray:
    """float32[C, T]: a UTF-8 CSV file, or one in gzip, whose columns are leads.

    See `CsvEcgOptions`, `EcgOptions` and the module `ecg`. Empty cells and nan are gaps. Columns that are no lead asked
    for are ignored.

    Raises:
      UserError: a missing or damaged file, a cell that is no number, unequal steps of time, or an unusable lead.
    """
    chosen, path = build(CsvEcgOptions, options, "ECG options"), Path(path)
    where = f"ECG {path}"
    if not path.is_file():
        raise UserError(f"{where} does not exist")
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{where} has {path.stat().st_size} bytes, at most {_MAX_BYTES} are read; cut it into parts")
    try:
        open_text = gzip.open if path.suffix.lower() == ".gz" else open
        with open_text(path, "rt", newline="", encoding="utf-8-sig") as f:
            names, columns = _columns(csv.reader(_lines(f, where), delimiter=chosen.delimiter), chosen, where)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where} cannot be read as UTF-8 CSV: {error}") from None
    rate = chosen.file_rate or _rate(columns[chosen.time], chosen.time_unit, where)
    check_rate(rate, where)
    traces = []
    for name, (lead, unit) in names.items():
        values = columns.get(name, np.zeros(0))
        start, stop = chosen.part(len(values), rate)
        traces.append(Trace(lead, unit, rate, values[start:stop]))
    return assemble(traces, chosen, where)


def _lines(file, where: str) -> Iterator[str]:
    total = 0
    while line := file.readline(_MAX_LINE):
        total += len(line)
        if len(line) == _MAX_LINE:
            raise UserError(f"{where} has a line of more than {_MAX_LINE} characters; is it CSV?")
        if total > _MAX_BYTES:
            raise UserError(f"{where} unpacks to more than {_MAX_BYTES} characters; cut it into parts")
        yield line


def _columns(rows, options: CsvEcgOptions, where: str) -> tuple[dict[str, tuple[str, str]], dict[str, np.ndarray]]:
    """`{column: (lead, unit)}` of the whole header, and float64[T] of the columns that are needed."""
    header = [" ".join(name.split()) for name in options.columns or next(rows, [])]
    if len(set(header)) < len(header) or not header:
        raise UserError(f"{where} needs a header that names every column once (option columns where it has none)")
    check_size(len(header), 0, where)
    names = {name: _lead_and_unit(name) for name in header}
    if options.time and options.time not in names:
        raise UserError(f"{where} has no column {options.time!r} for the time; it has {', '.join(header)}")
    wanted = options.wanted()
    kept = {i: array("d") for i, n in enumerate(header) if n == options.time or canonical(names[n][0]) in wanted}
    limit = MAX_SAMPLES // max(1, len(kept))
    for line, row in enumerate(rows, start=1 if options.columns else 2):
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{where} line {line} has {len(row)} cells and {len(header)} columns")
        try:
            for i, values in kept.items():
                values.append(number(row[i], header[i]))
        except UserError as error:
            raise UserError(f"{where} line {line}: {error}") from None
        if line > limit:
            check_size(0, line * len(kept), where)
    return names, {header[i]: np.frombuffer(values, np.float64) for i, values in kept.items()}


def _lead_and_unit(name: str) -> tuple[str, str]:
    match = _UNIT_OF_NAME.fullmatch(name)
    return (match[1].strip(), match[2].strip()) if match else (name, "")


def _rate(time: np.ndarray, unit: str, where: str) -> float:
    """Samples per second of equal steps; steps may differ from their mean by 1 % of it, as rounding makes them."""
    steps = np.diff(time) / _PER_SECOND[unit]
    if not len(steps) or not np.isfinite(steps).all() or (mean := steps.mean()) <= 0:
        raise UserError(f"{where} has no time that rises from row to row")
    if (odd := np.abs(steps - mean) > 0.01 * mean).any():
        raise UserError(f"{where} has unequal steps of time, the first at row {np.argmax(odd) + 1}; resample it evenly")
    rate = 1 / mean
    return float(round(rate)) if math.isclose(rate, round(rate), rel_tol=1e-4) else rate
