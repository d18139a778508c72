"""A workdir in an object store: its checkpoints lie there, its small files here, in a folder that is copied there.

Objects cannot be appended to, so that the log, the metrics and what else a run writes line by line are written to a
folder of the cache. What has changed in it is uploaded every half minute, before each checkpoint and at the end.
"""

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medjax import storage
from medjax.data.remote import cache_folder
from medjax.errors import StorageError
from medjax.storage import as_path, is_remote

log = logging.getLogger("medjax")

MARK = ".workdir"  # in the folder here: the address of the workdir
LOCK = "run.lock"
# What is large, or of no use to a run that goes on.
_LEFT_THERE = frozenset({"checkpoints", "best", "untrained", "tensorboard", "profile", "evaluation", LOCK})
_EVERY = 30.0  # seconds
_open: dict[Path, "Mirror"] = {}


class Mirror:
    """The folder here of a workdir there. who: tells apart the processes of a machine that have one each."""

    def __init__(self, url: str, who: str):
        self._url = url.rstrip("/")
        key = hashlib.sha256(self._url.encode()).hexdigest()[:16]
        self.folder = cache_folder() / "runs" / f"{PurePosixPath(self._url).name}-{key}" / who
        self._sent: dict[str, tuple[int, int]] = {}
        self._turn = threading.Lock()

    def pull(self) -> None:
        """Makes the folder here what the workdir holds, but for checkpoints, pictures of the run and traces.

        Raises:
          StorageError: the storage does not answer.
        """
        there = [n for n in storage.sizes(self._url) if not _LEFT_THERE & set(n.split("/"))]
        for name in set(self._states()) - set(there):
            (self.folder / name).unlink()  # of a run that was deleted there
        for name in there:
            storage.fetch(f"{self._url}/{name}", self.folder / name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARK).write_text(self._url)
        self._sent = self._states()

    def push(self) -> None:
        """Uploads what has changed.

        Raises:
          StorageError: the storage does not take it.
        """
        with self._turn:
            for name, state in self._states().items():
                if self._sent.get(name) != state:
                    with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                        storage.write_bytes(f"{self._url}/{name}", (self.folder / name).read_bytes())
                        self._sent[name] = state

    def try_to_push(self) -> None:
        """As `push`, of what is uploaded later where it fails now."""
        try:
            self.push()
        except StorageError as error:
            log.warning("%s is not up to date: %s", self._url, error)

    def _states(self) -> dict[str, tuple[int, int]]:
        """Size and time of the files here."""
        found = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if name != MARK and not name.endswith((".part", ".partial")):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file():
                        found[name] = path.stat().st_size, path.stat().st_mtime_ns
        return found

    @contextlib.contextmanager
    def kept(self) -> Iterator[Path]:
        """The folder here; uploads while it is in use, and what is left at the end."""
        self.pull()
        over = threading.Event()

        def work() -> None:
            while not over.wait(_EVERY):
                self.try_to_push()

        thread = threading.Thread(target=work, name="medjax-mirror", daemon=True)
        thread.start()
        _open[self.folder] = self
        try:
            yield self.folder
        except BaseException:
            self.try_to_push()
            raise
        else:
            self.push()
        finally:
            del _open[self.folder]
            over.set()


@contextlib.contextmanager
def spooled(workdir: str | os.PathLike, process: int = 0) -> Iterator[Path]:
    """The folder that a run writes its small files to: the workdir, or one here for a workdir in an object store.

    process: index of this one; each has a folder of its own.

    Raises:
      StorageError: the storage does not answer.
    """
    if is_remote(workdir):
        with Mirror(os.fspath(workdir), f"process-{process}").kept() as folder:
            yield folder
    else:
        yield Path(workdir)


def readable(workdir: str | os.PathLike) -> Path:
    """The folder to read a run's small files from: the workdir, or a copy here of what an object store holds.

    Raises:
      StorageError: the storage does not answer.
    """
    if not is_remote(workdir):
        return Path(workdir)
    mirror = Mirror(os.fspath(workdir), "reading")
    mirror.pull()
    return mirror.folder


def flush(workdir: Path) -> None:
    """Uploads what has changed in the folder of a run, if it is one of a workdir in an object store."""
    for folder, mirror in list(_open.items()):
        if folder == workdir or folder in workdir.parents:
            mirror.try_to_push()


def place(path: str | os.PathLike) -> Any:
    """Where a file or folder of a run really lies: `path`, or the same in the workdir that its folder mirrors."""
    if is_remote(path):
        return as_path(path)
    local = Path(path)
    for folder in (local, *local.parents):
        if (folder / MARK).is_file():
            return as_path((folder / MARK).read_text()) / local.relative_to(folder).as_posix()
    return local
