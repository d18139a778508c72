"""webdataset tar shards, as OpenCLIP reads them: members `key.jpg`, `key.txt`, `key.json` that follow each other are
one sample. No name from an archive is ever used as a path.
"""

import itertools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from medjax.errors import LayoutError, UserError

MAX_MEMBER = 2**30
_MAX_HEADER = 2**20  # a name or an extended header of more is none
_MAX_SHARDS = 100_000
_MAX_MEMBERS = 10_000_000
_BLOCK = 512
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class Sample:
    """A sample of a shard: where in the file the data of each ending begins and how long it is."""

    path: Path
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)

    def read(self, ending: str) -> bytes:
        """The bytes of one member.

        Raises:
          UserError: the shard is shorter than when it was listed, or cannot be read.
        """
        start, size = self.members[ending]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise UserError(f"shard {self.path} cannot be read: {error.strerror}") from None
        if len(data) != size:
            raise UserError(f"shard {self.path} is cut off in {self.key[:80]!r}.{ending}; get it again")
        return data


def expand_shards(pattern: str) -> list[Path]:
    """The shards of a pattern such as `train-{000..127}.tar` or `{a,b}-{0..9}.tar`; zeros in front are kept, and
    several patterns may be joined by "::".

    Raises:
      UserError: a pattern has unpaired braces or too many shards, or shards are missing.
    """
    paths = [Path(name) for part in pattern.split("::") for name in _expand(part)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise LayoutError(f"shard {missing[0]} does not exist ({len(missing)} of {len(paths)} are missing)")
    return paths


def _expand(pattern: str) -> Iterator[str]:
    pieces = _BRACES.split(pattern)  # text, braces, text, ...
    if any(c in piece for piece in pieces[::2] for c in "{}"):
        raise LayoutError(f"shards {pattern!r} have braces that do not pair; write train-{{000..127}}.tar")
    choices = [[piece] if i % 2 == 0 else _choices(piece) for i, piece in enumerate(pieces)]
    count = 1
    for options in choices:
        count *= len(options)
        if count > _MAX_SHARDS:
            raise LayoutError(f"shards {pattern!r} are more than {_MAX_SHARDS}; build in several parts")
    return ("".join(parts) for parts in itertools.product(*choices))


def _choices(inside: str) -> list[str]:
    if found := _RANGE.fullmatch(inside):
        first, last = (int(x) for x in found.groups())
        if not 0 <= last - first < _MAX_SHARDS:
            raise LayoutError(f"shard range {{{inside[:60]}}} must rise and have at most {_MAX_SHARDS} numbers")
        width = len(found[1]) if found[1].startswith("0") else 0
        return [f"{i:0{width}d}" for i in range(first, last + 1)]
    return inside.split(",")


def samples(path: str | Path) -> Iterator[Sample]:
    """The samples of one shard in their order; only its headers are read. Endings are in lower case and run from the
    first dot of the file name: `a/b.seg.png` is the ending `seg.png` of the sample `a/b`. Files whose names begin with
    a dot, and folders, are passed over.

    Raises:
      UserError: the shard is missing, compressed, torn, holds a link or a device, a member of more than 1 GiB, or a
        sample twice.
    """
    path = Path(path)
    if not path.is_file():
        raise LayoutError(f"shard {path} does not exist")
    current, seen = Sample(path, ""), set()
    for name, start, size in _members(path):
        folder, _, file = name.rpartition("/")
        stem, _, ending = file.partition(".")
        if not stem or not ending:
            continue
        key, ending = f"{folder}/{stem}" if folder else stem, ending.lower()
        if key != current.key:
            if current.members:
                yield current
            if key in seen:
                raise UserError(f"shard {path} has the sample {key[:80]!r} in two places; its members must be together")
            seen.add(key)
            current = Sample(path, key)
        if ending in current.members:
            raise UserError(f"shard {path} has {key[:80]!r}.{ending} twice; make the shard again")
        current.members[ending] = (start, size)
    if current.members:
        yield current


class _Headers:
    """A file that tarfile may only take headers from: it reads as many bytes as a header claims that it has."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {count} bytes")
        return self._file.read(count)


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of each file."""
    end, at = path.stat().st_size, 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_Headers(file), mode="r:") as tar:
            for _ in range(_MAX_MEMBERS):
                member = tar.next()
                if member is None:
                    break
                tar.members = []  # tarfile keeps every header
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise UserError(f"shard {path} holds {member.name[:80]!r}, a link or a device; make it again")
                if not (0 <= member.size <= MAX_MEMBER and at <= member.offset_data <= end - member.size):
                    raise UserError(f"shard {path} has {member.name[:80]!r} of {member.size} bytes, which do not fit")
                at = member.offset_data + member.size
                if member.isfile():
                    yield member.name, member.offset_data, member.size
            _check_end(file, tar.offset)
    except tarfile.TarError as error:
        raise LayoutError(
            f"shard {path} is no plain tar file ({error}); unpack .tar.gz, and get torn ones again"
        ) from None
    except UserError:
        raise
    except (OSError, ValueError, OverflowError, EOFError, IndexError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LayoutError(f"shard {path} cannot be read as a tar file: {reason}") from None


def _check_end(file: BinaryIO, at: int) -> None:
    """tarfile takes a damaged header, or the end of the file, for the end of the archive: that is a block of zeros."""
    file.seek(at)
    if (tail := file.read(_BLOCK)) != bytes(_BLOCK):
        raise tarfile.ReadError(f"it is damaged at byte {at}" if tail else "it has no end mark and is cut off")
