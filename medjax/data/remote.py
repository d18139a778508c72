"""Data sets and single files in object stores: copied to this machine when they are first needed, and verified.

A data set at `gs://...` gets a folder in the cache, with its manifest, its tokenizer and `origin.json`, which says
where the rest lies. Its shards follow one by one; what is there has the checksum of the manifest.
"""

import bisect
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from medjax import storage
from medjax.errors import StorageError, UserError

log = logging.getLogger("medjax")
ORIGIN = "origin.json"
_EAGER = "tokenizer/"
_THREADS = 4
_ROOM = 2**28  # bytes that are left free beside what is fetched


def cache_folder(configured: str = "") -> Path:
    """Where copies are kept: as configured, `MEDJAX_CACHE_DIR`, or a folder of the user's cache."""
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(configured or os.environ.get("MEDJAX_CACHE_DIR") or f"{user}/medjax").expanduser()


def adopt(url: str, manifest: str, folder: Path) -> Path:
    """Makes the folder of a remote data set in the cache, without its shards; returns it. manifest: the file's name.

    A data set that was built anew at the same place has another manifest, and with it another folder.

    Raises:
      UserError: there is no data set. StorageError: the storage does not answer.
    """
    url = url.rstrip("/")
    try:
        described = storage.read_bytes(f"{url}/{manifest}")
    except FileNotFoundError:
        raise UserError(f"no data set at {url}: {manifest} is missing") from None
    key = hashlib.sha256(url.encode() + b"\0" + described).hexdigest()[:16]
    directory = folder / f"{PurePosixPath(url).name}-{key}"
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / ORIGIN):
        if not (directory / ORIGIN).is_file():
            sizes = storage.sizes(url)
            for name in [n for n in sizes if n.startswith(_EAGER)]:
                storage.fetch(f"{url}/{name}", directory / name)
            (directory / manifest).write_bytes(described)
            partial = directory / f"{ORIGIN}.part"
            partial.write_text(json.dumps({"url": url, "sizes": sizes}))
            partial.replace(directory / ORIGIN)
    return directory


@cache
def origin(directory: Path) -> dict[str, Any] | None:
    """`{"url", "sizes": {file: bytes}}` of a folder of the cache; None of another."""
    path = directory / ORIGIN
    return json.loads(path.read_text()) if path.is_file() else None


def size(directory: Path, name: str) -> int | None:
    """Bytes of a file of a data set, here or where it comes from; None if it is missing."""
    if (directory / name).is_file():
        return (directory / name).stat().st_size
    found = origin(directory)
    return found["sizes"].get(name) if found else None


def local_file(directory: Path, entry: Mapping[str, Any]) -> Path:
    """The file of an entry of the manifest ("file", "bytes", "sha256"), fetched if it is not here yet.

    Raises:
      StorageError: it cannot be fetched, or what is stored differs from the manifest.
      UserError: there is no room for it.
    """
    path = directory / entry["file"]
    if path.is_file() or (found := origin(directory)) is None:
        return path
    url = f"{found['url']}/{entry['file']}"
    with _locked(path):
        if not path.is_file():
            check_room(directory, [entry])
            try:
                storage.fetch(url, path, entry["sha256"])
            except FileNotFoundError:
                raise StorageError(f"{url} is missing; copy the data set there again") from None
            except OSError as error:
                raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def check_room(directory: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError where the disk has no room for those of the files that are not here yet."""
    if origin(directory) is None:
        return
    missing = sum(e["bytes"] for e in entries if not (directory / e["file"]).is_file())
    free = shutil.disk_usage(directory).free
    if missing and missing + _ROOM > free:
        raise UserError(
            f"{directory} needs {missing / 1e9:.2f} GB more for {origin(directory)['url']} and its disk has "
            f"{free / 1e9:.2f} GB free; name another with config.data.cache_dir or MEDJAX_CACHE_DIR"
        )


def fetch_ahead(directory: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Starts to fetch files in this order, a few at a time, while the caller goes on.

    What fails here is only logged: who needs the file tries again, and says so.
    """
    missing = iter([e for e in entries if not (directory / e["file"]).is_file()])
    turn = threading.Lock()

    def work() -> None:
        while True:
            with turn:
                entry = next(missing, None)
            if entry is None:
                return
            try:
                local_file(directory, entry)
            except UserError as error:
                log.warning("fetching ahead stops: %s", error)
                return

    if origin(directory) is not None:
        for _ in range(_THREADS):
            threading.Thread(target=work, name="medjax-fetch", daemon=True).start()


class LazyShards:
    """The records of a split of a remote data set, at random access. A shard is fetched when it is first asked for."""

    def __init__(self, directory: Path, shards: Sequence[Mapping[str, Any]]):
        self._directory, self._shards = directory, list(shards)
        self._ends: list[int] = []
        for shard in self._shards:
            self._ends.append((self._ends[-1] if self._ends else 0) + shard["records"])
        self._opened: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def shard(self, record: int) -> int:
        """The number of the shard that holds a record."""
        return bisect.bisect_right(self._ends, record)

    def __getitem__(self, record) -> bytes:
        number = self.shard(int(record))
        first = self._ends[number] - self._shards[number]["records"]
        return self._open(number)[int(record) - first]

    def _open(self, number: int) -> Any:
        if number not in self._opened:
            import grain

            shard = self._shards[number]
            path = local_file(self._directory, shard)
            source = grain.sources.ArrayRecordDataSource([str(path)])
            if len(source) != shard["records"]:
                raise UserError(f"{path} holds {len(source)} records, its manifest says {shard['records']}")
            self._opened[number] = source
        return self._opened[number]


@contextlib.contextmanager
def borrowed(root: str, path: str) -> Iterator[Path]:
    """A single file under a remote root, in a folder that is gone afterwards; with a .hea file those of its record, of
    a folder (a DICOM series) all.

    Raises:
      UserError: there is none. StorageError: the storage does not answer.
    """
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts:
        raise UserError(f"the reference {path} leaves the folder of the source; build the data set again")
    root = root.rstrip("/")
    with tempfile.TemporaryDirectory(prefix="medjax-") as folder:
        local = Path(folder) / place
        if place.suffix != ".hea":
            with contextlib.suppress(FileNotFoundError):
                _take(f"{root}/{path}", local)
        if not local.exists():
            for name in _companions(root, place):
                _take(f"{root}/{name}", Path(folder) / name)
        yield local


def _take(url: str, local: Path) -> None:
    data = storage.read_bytes(url)
    local.parent.mkdir(parents=True, exist_ok=True)
    local.write_bytes(data)


def _companions(root: str, place: PurePosixPath) -> list[str]:
    """The files under a folder; or those beside each other that share a stem."""
    if inside := storage.sizes(f"{root}/{place}"):
        return [f"{place}/{name}" for name in inside]
    stem = place.with_suffix("") if place.suffix == ".hea" else place
    beside = storage.sizes(f"{root}/{stem.parent}" if stem.parent.parts else root)
    found = [str(stem.parent / name) for name in beside if "/" not in name and name.startswith(f"{stem.name}.")]
    if not found:
        raise UserError(f"file {place} does not exist")
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process and thread at a time; who dies lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield
