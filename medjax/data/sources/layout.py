"""What archives' layouts share: tables by name, files inside a folder, a validation split, days from time stamps."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath

from medjax.data.ids import hash_id
from medjax.data.readers.table import iterate_table
from medjax.errors import UserError

_ENDINGS = ("", ".gz")


def find_table(folder: Path, name: str) -> Path:
    """`folder/name` or `folder/name.gz`.

    Raises:
      UserError: neither is there.
    """
    for path in (folder / f"{name}{ending}" for ending in _ENDINGS):
        if path.is_file():
            return path
    raise UserError(f"table {folder / name} does not exist, nor {name}.gz; get the whole archive")


def holds_table(folder: Path, name: str) -> bool:
    """Whether `find_table` would find it."""
    return any((folder / f"{name}{ending}").is_file() for ending in _ENDINGS)


def stream_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The cells of `columns`, in that order, of one row after the other, in bounded memory.

    Raises:
      UserError: as `medjax.data.readers.table.iterate_table`.
    """
    for row in iterate_table(path, columns):
        yield tuple(row[c] for c in columns)


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns; none where it has no rows.

    Raises:
      UserError: the table is missing or damaged.
    """
    return list(next(iterate_table(path), {}))


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, for a name that stands in a table.

    Raises:
      UserError: the name is empty, absolute, or climbs out of the folder.
    """
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"file {name.strip()[:80]!r} is no name inside the archive's folder; correct the table")
    return folder / path


def held_out(patient: str, share: float) -> bool:
    """Whether a patient of an archive without a validation split is in the `share` of its training split that serves
    as one: by a hash, so that it does not depend on the order of the files.
    """
    return int(hash_id(f"held out:{patient}")[0]) < share * 2**32


def day_of(stamp: str, table: str = "a table") -> float:
    """A time stamp in ISO form, such as "2180-05-06 22:23:00" or "21800506T222300", in days of a common calendar.

    Only differences of such days may enter a record.

    Raises:
      UserError: the text is no time stamp. The text is not repeated: it may be a real date.
    """
    try:
        time = datetime.fromisoformat(stamp.strip())
        return time.toordinal() + (time.hour * 3600 + time.minute * 60 + time.second) / 86400
    except ValueError:
        raise UserError(f"{table} holds a cell that is no time such as 2180-05-06 22:23:00; correct it") from None
