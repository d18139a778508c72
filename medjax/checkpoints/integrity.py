"""Checksums of every file of a checkpoint. Orbax notices truncation, but restores a flipped bit as it finds it."""

import errno
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from medjax.errors import StorageError
from medjax.storage import is_remote, read_bytes, sizes, with_retries, write_bytes

log = logging.getLogger("medjax")

FILE = "checksums.json"
UNFINISHED = f"{FILE} is missing, the save was not finished"
_PARTIAL = f"{FILE}.partial"
_THREADS = 8
_CHUNK = 2**22
_REPORT = 10.0  # seconds between two lines of the log
# Errors of the files themselves; others, such as too many open files, say nothing about them.
_NAMES = ("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "EIO", "ELOOP", "ENAMETOOLONG", "EUCLEAN", "EBADMSG")
_DAMAGE = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))


def seal(folder: epath.Path) -> None:
    """Reads back every file of a finished save and writes checksums.json, the last thing that happens to a checkpoint:
    `{"step": 300, "files": {name: {"bytes": ..., "sha256": ...}}}`.

    What it names is on the disk before it is: a power cut leaves a sealed checkpoint whole, or unsealed.
    """
    found = {name: size for name, (size, _) in fingerprint(folder)}
    sums = _digests(folder, found, "reading back", sync=True)
    files = {name: {"bytes": found[name], "sha256": sums[name]} for name in sorted(found)}
    text = json.dumps({"step": int(folder.name), "files": files}, indent=1) + "\n"
    if is_remote(folder):
        write_bytes(folder / FILE, text.encode())
        return
    partial = folder / _PARTIAL
    partial.write_text(text)
    for path in (partial, *(where for where, _, _ in os.walk(folder)), folder.parent):
        _sync(path)
    partial.rename(folder / FILE)
    _sync(folder)


def damage(folder: epath.Path) -> str | None:
    """What is wrong with a checkpoint in a few words, or None if every file is as it was sealed. Reads each once.

    Raises:
      StorageError: the storage did not answer: whether anything is wrong is not known.
    """
    return _found(lambda: _changed(folder))


def incomplete(folder: epath.Path) -> str | None:
    """The part of `damage` that needs no reading: what is missing, was added, or has another size."""
    return _found(lambda: _look(folder)[0])


def _found(look: Callable[[], str | None]) -> str | None:
    try:
        return look()
    except OSError as error:
        if error.errno in _DAMAGE:
            return f"it cannot be read: {error.strerror}"
        raise StorageError(f"checkpoints cannot be looked at: {error}") from error


def _look(folder: epath.Path) -> tuple[str | None, dict[str, "_Entry"]]:
    if not is_remote(folder) and not folder.is_dir():
        return "it is a file, not a folder", {}
    sealed = _sealed(folder)
    if isinstance(sealed, str):
        return sealed, {}
    found = {name: size for name, (size, _) in fingerprint(folder)}
    if missing := sorted(set(sealed) - set(found)):
        return _said(missing, "is missing"), sealed
    if extra := sorted(set(found) - set(sealed)):
        return _said(extra, "was added"), sealed
    for name, entry in sealed.items():
        if entry.bytes is not None and found[name] != entry.bytes:
            return f"{name} has {found[name]} bytes, and was sealed with {entry.bytes}", sealed
    return None, sealed


def _changed(folder: epath.Path) -> str | None:
    problem, sealed = _look(folder)
    if problem is not None:
        return problem
    sums = _digests(folder, {name: size for name, (size, _) in fingerprint(folder)}, "verifying")
    wrong = [name for name, entry in sealed.items() if sums.get(name) != entry.sha256]
    return _said(wrong, "differs from its checksum") if wrong else None


def _said(names: list[str], what: str) -> str:
    return f"{names[0]} {what}" + (f", and {len(names) - 1} more" if len(names) > 1 else "")


def fingerprint(folder: epath.Path) -> tuple[tuple[str, tuple[int, int]], ...]:
    """`(name, (bytes, time of the last change))` of every file but the checksums: equal while nothing is written."""
    if is_remote(folder):
        found = {name: (size, 0) for name, size in sizes(folder).items()}
    else:
        found = {}
        for where, _, names in os.walk(folder, onerror=_raise):
            for path in (Path(where) / name for name in names):
                stat = path.stat()
                found[path.relative_to(folder).as_posix()] = stat.st_size, stat.st_mtime_ns
    return tuple(sorted((k, v) for k, v in found.items() if k not in (FILE, _PARTIAL)))


@dataclass(frozen=True)
class _Entry:
    """bytes: None in checkpoints from before sizes were kept."""

    bytes: int | None
    sha256: str


def _sealed(folder: epath.Path) -> dict[str, _Entry] | str:
    """What checksums.json says, or what is wrong with it."""
    try:
        text = (folder / FILE).read_bytes() if not is_remote(folder) else read_bytes(folder / FILE)
    except FileNotFoundError:
        return UNFINISHED
    try:
        found: Any = json.loads(text)
        if not isinstance(found.get("files"), dict):  # written before steps and sizes were kept
            return {name: _Entry(None, _text(sum)) for name, sum in found.items()}
        entries = {name: _Entry(int(entry["bytes"]), _text(entry["sha256"])) for name, entry in found["files"].items()}
        step = found["step"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{FILE} is not readable"
    return entries if str(step) == folder.name else f"it is step {step} under another name"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _digests(folder: epath.Path, found: dict[str, int], doing: str, sync: bool = False) -> dict[str, str]:
    """SHA-256 of files by name, several at a time; a line in the log now and then where it takes long."""
    progress = _Progress(f"{doing} {folder}", sum(found.values()))

    def one(name: str) -> str:
        path = folder / name
        if not is_remote(path):
            return _digest(path, progress, sync)
        # What fails leaves its bytes counted: the log shows a little too much, and the sum is right.
        return with_retries(lambda: _digest(path, progress), f"reading {path}")

    little = not is_remote(folder) and sum(found.values()) <= _CHUNK
    with ThreadPoolExecutor(1 if little else _THREADS) as pool:
        return dict(zip(found, pool.map(one, found), strict=True))


def _digest(path: epath.Path, progress: "_Progress", sync: bool = False) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        if sync:
            os.fsync(f.fileno())
        while chunk := f.read(_CHUNK):
            digest.update(chunk)
            progress.add(len(chunk))
    return digest.hexdigest()


class _Progress:
    def __init__(self, what: str, total: int):
        self._what, self._total, self._done = what, total, 0
        self._lock, self._next = threading.Lock(), time.monotonic() + _REPORT

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _REPORT
        log.info("%s: %.1f of %.1f GiB", self._what, self._done / 2**30, self._total / 2**30)


def _sync(path: epath.Path) -> None:
    """Makes sure that a local file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    raise error
