"""CSV tables with a header, as rows of strings, and their cells as numbers."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from medjax.errors import UserError, suggest

csv.field_size_limit(2**24)  # reports may be long, but not unbounded


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """All rows of a UTF-8 CSV file; the first column may lack a name and is then called "".

    Raises:
      UserError: the file is missing, empty, not UTF-8, or has a row of another length than its header.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"table {path} does not exist")
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            rows = list(csv.reader(f))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"table {path} cannot be read as UTF-8 CSV: {error}") from None
    if len(rows) < 2:
        raise UserError(f"table {path} has no rows")
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UserError(f"table {path} line {number} has {len(row)} cells, its header {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def check_columns(rows: Sequence[dict[str, str]], columns: Sequence[str], path: str | Path) -> None:
    """Raises UserError, naming the nearest column, where one is not in the table."""
    for column in columns:
        if column not in rows[0]:
            raise UserError(f"table {path} has no column {column!r}; {suggest(column, rows[0])}")


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


def binary(cell: str, column: str) -> float:
    """A label cell as 0, 1 or NaN (unknown).

    Raises:
      UserError: another value.
    """
    value = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}.get(cell.strip().lower())
    value = number(cell, column) if value is None else value
    if not (math.isnan(value) or value in (0.0, 1.0)):
        raise UserError(f"label column {column!r} holds {cell.strip()!r}; labels are 0, 1 or empty")
    return value
