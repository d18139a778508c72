"""Tables with a header (CSV, TSV, JSON lines, Parquet), as rows of strings, and their cells as numbers."""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medjax.errors import LayoutError, UserError, suggest

_BLOCK = 2**18
_MAX_LINE = 2**24  # reports may be long, but not unbounded
_MAX_MEMORY = 2**33  # of the rows that `read_table` returns
_MAX_ROW_GROUP = 2**31
_CELL_OVERHEAD = 64
csv.field_size_limit(_MAX_LINE)

Row = dict[str, str]
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> list[Row]:
    """All rows of a table, of the `columns` (default: all), by the file's ending: .csv, .tsv, .jsonl, .ndjson, each
    also with .gz, and .parquet. Missing cells are empty strings; see `iterate_table` for the others.

    Raises:
      UserError: as `iterate_table`; or no rows, or more than 8 GiB of them.
    """
    rows, memory = [], 0
    for row in iterate_table(path, columns):
        memory += sum(len(cell) + _CELL_OVERHEAD for cell in row.values())
        if memory > _MAX_MEMORY:
            raise LayoutError(f"table {path} takes more than {_MAX_MEMORY >> 30} GiB; split it, or name fewer columns")
        rows.append(row)
    if not rows:
        raise LayoutError(f"table {path} has no rows")
    return rows


def iterate_table(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows one after the other, in bounded memory. Text is UTF-8. Numbers read as they are written, whole ones
    without a decimal point (a patient 7.0 is the patient 7); null and NaN are empty, true and false are 1 and 0; lists
    and objects are refused where their column is asked for.

    Raises:
      UserError: the file is missing, of another kind, torn, lacks one of `columns` or names one twice, has a row of
        another length than its header, or a line of more than 16 MiB.
    """
    path = Path(path)
    if not path.is_file():
        raise LayoutError(f"table {path} does not exist")
    kind = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind in _PARQUET:
        return _parquet(path, columns)
    if kind in _JSON_LINES:
        return _json_lines(path, columns)
    if kind in _DELIMITERS:
        return _delimited(path, _DELIMITERS[kind], columns)
    raise LayoutError(f"table {path} ends with {path.suffix!r}; readable are .csv, .tsv, .jsonl, .ndjson and .parquet")


def read_csv(path: str | Path) -> list[Row]:
    """All rows of a UTF-8 CSV file whatever its ending; the first column may lack a name and is then called "".

    Raises:
      UserError: the file is missing, empty, not UTF-8, or has a row of another length than its header.
    """
    path = Path(path)
    if not path.is_file():
        raise LayoutError(f"table {path} does not exist")
    rows = list(_delimited(path, ",", None))
    if not rows:
        raise LayoutError(f"table {path} has no rows")
    return rows


def check_columns(rows: Sequence[Row], columns: Sequence[str], path: str | Path) -> None:
    """Raises UserError, naming the nearest column, where one is not in the table."""
    _check(columns, rows[0], path)


def _check(columns: Sequence[str] | None, found: Iterable[str], path: str | Path) -> list[str]:
    """The columns to read."""
    found = list(found)
    for column in columns or ():
        if column not in found:
            raise LayoutError(f"table {path} has no column {column!r}; {suggest(column, found)}")
    twice = [c for c in dict.fromkeys(columns or found) if found.count(c) > 1] if len(set(found)) < len(found) else []
    if twice:
        raise LayoutError(f"table {path} has {found.count(twice[0])} columns {twice[0]!r}; rename or drop one")
    return list(dict.fromkeys(columns)) if columns is not None else found


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """Lines of bounded length of a text file or a gzipped one."""
    try:
        with (
            gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as data,
            io.TextIOWrapper(data, encoding="utf-8-sig", newline="") as text,
        ):
            yield _bounded(text, path)
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"table {path} cannot be read as UTF-8 CSV or JSON lines: {error}") from None
    except OSError as error:
        raise UserError(f"table {path} cannot be read: {error.strerror or error}") from None


def _bounded(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """Block by block, each up to the end of its last line, which is much faster than line by line."""
    while block := text.read(_BLOCK):
        rest = text.readline(_MAX_LINE + 1)
        if len(rest) > _MAX_LINE:
            raise LayoutError(f"table {path} has a line of more than {_MAX_LINE >> 20} MiB; is it a table?")
        yield from io.StringIO(block + rest, newline="")


def _delimited(path: Path, delimiter: str, columns: Sequence[str] | None) -> Iterator[Row]:
    with _lines(path) as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        header = next(reader, [])
        wanted = _check(columns, header, path) if header else []
        columns_at, width = [(c, header.index(c)) for c in wanted], len(header)
        for number, row in enumerate(reader, start=2):
            if len(row) != width:
                raise LayoutError(f"table {path} line {number} has {len(row)} cells, its header {width}")
            yield {c: row[i] for c, i in columns_at}


def _json_lines(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    """Without `columns` those of the first line are read; a line may lack some."""
    seen: dict[str, None] = {}
    with _lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"table {path} line {number} is not JSON: {error}") from None
            if not isinstance(row, Mapping):
                raise UserError(f"table {path} line {number} is no JSON object; one line is one row")
            if columns is None:
                columns = list(row)
            if len(seen) < _MAX_LINE:
                seen.update(dict.fromkeys(row))
            yield {c: _cell(row.get(c), c, path) for c in columns}
    if seen:
        _check(columns, seen, path)


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("reading Parquet needs the package pyarrow; pip install 'medjax[readers]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            wanted = _check(columns, file.schema_arrow.names, path)
            for group in range(file.metadata.num_row_groups):
                claimed = file.metadata.row_group(group).total_byte_size
                if not 0 <= claimed <= _MAX_ROW_GROUP:
                    raise UserError(
                        f"table {path} has a row group of {claimed} bytes, the limit is {_MAX_ROW_GROUP}; "
                        "write it with smaller row groups"
                    )
            for batch in file.iter_batches(batch_size=1024, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    yield {c: _cell(row[c], c, path) for c in wanted}
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"table {path} cannot be read as Parquet: {reason}") from None


def _cell(value: Any, column: str, path: Path) -> str:
    try:
        return as_cell(value, column)
    except UserError as error:
        raise UserError(f"table {path}: {error}") from None


def as_cell(value: Any, column: str) -> str:
    """A value of JSON or Parquet as a cell, see `iterate_table`.

    Raises:
      UserError: it is a list, an object or bytes.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, bytes | Mapping | Sequence) and not isinstance(value, str):
        raise UserError(f"{column!r} holds a {type(value).__name__}; it must be text or a number")
    return str(value)


def number(cell: str, column: str) -> float:
    """A cell as a number: NaN if empty; "inf" and "-inf" (beyond a detection limit) are kept.

    Raises:
      UserError: the cell is no number.
    """
    text = cell.strip()
    if not text or text.lower() in ("nan", "na", "none", "null"):
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise UserError(f"column {column!r} holds {text[:40]!r}, which is no number") from None


UNCERTAIN = {"refuse": None, "ignore": math.nan, "zeros": 0.0, "ones": 1.0}


def binary(cell: str, column: str, uncertain: str = "refuse") -> float:
    """A label cell as 0, 1 or NaN (unknown).

    uncertain: what -1, which label programs of reports write for "perhaps", becomes: "ignore" unknown, "zeros" 0,
    "ones" 1 (the policies of CheXpert, arXiv:1901.07031, section 4); "refuse" raises.

    Raises:
      UserError: another value.
    """
    value = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}.get(cell.strip().lower())
    value = number(cell, column) if value is None else value
    if value == -1 and uncertain == "refuse":
        raise UserError(
            f"label column {column!r} holds -1, which reads as uncertain; say what it becomes with "
            "--uncertain_labels=ignore|zeros|ones"
        )
    if value == -1:
        return UNCERTAIN[uncertain]
    if not (math.isnan(value) or value in (0.0, 1.0)):
        raise UserError(f"label column {column!r} holds {cell.strip()!r}; labels are 0, 1 or empty")
    return value
