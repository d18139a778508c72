"""One run at a time in a workdir: a file that says who is there, and a heartbeat that says that they still are."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medjax.checkpoints.mirror import place
from medjax.errors import StorageError, UserError
from medjax.storage import is_remote, read_bytes, write_bytes

log = logging.getLogger("medjax")

FILE = "run.lock"
BEAT = 10.0  # seconds
_STALE = 2.5  # beats without which a run of another host is taken for dead


@dataclass(frozen=True)
class Owner:
    """Who runs. machine: boot and process namespace, within which `pid` means one process that began at `began` (clock
    ticks since the boot). since, beat: seconds since 1970, for people; beats: how many so far.
    """

    token: str
    host: str
    machine: str
    pid: int
    began: str
    since: float
    beat: float
    beats: int = 0

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        now = time.time()
        return cls(uuid.uuid4().hex, socket.gethostname(), _machine(), os.getpid(), _began(os.getpid()), now, now)

    def lives(self) -> bool | None:
        """Whether the process is there; None if it is of another machine."""
        if not self.machine or self.machine != _machine():
            return None
        return _began(self.pid) == self.began

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, started {time.strftime('%F %T', time.localtime(self.since))}"


class RunLock:
    """The lock of a workdir, taken by the first process of a run. beat: seconds between two heartbeats."""

    def __init__(self, workdir: Path, beat: float = BEAT):
        self._path, self._beat = place(workdir / FILE), beat
        self._owner, self._lost, self._over = Owner.here(), False, threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator["RunLock"]:
        """Holds it within.

        Raises:
          UserError: another run is there, or the folder cannot be written to.
        """
        self._take()
        thread = threading.Thread(target=self._keep, name="medjax-lock", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()
            with contextlib.suppress(StorageError):  # a lock that stays is found stale
                if (there := self._read()) is not None and there.token == self._owner.token:
                    self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises StorageError if another run has taken the workdir over, while this one was taken for dead."""
        if self._lost:
            raise StorageError(f"{self._path.parent} was taken over by another run: {self._read()}")

    def _take(self) -> None:
        try:
            if not is_remote(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            if (there := self._read()) is not None:
                self._wait_for_death(there)
                if (now := self._read()) is not None and now.token != there.token:
                    raise UserError(self._refusal(now))  # another start was faster
                self._path.unlink(missing_ok=True)
            write_bytes(self._path, f"{json.dumps(asdict(self._owner))}\n".encode(), new=True)
        except FileExistsError:  # another start was faster
            raise UserError(self._refusal(self._read())) from None
        except OSError as error:
            raise UserError(f"--workdir={self._path.parent} cannot be written to: {error.strerror or error}") from None
        if (there := self._read()) is None or there.token != self._owner.token:
            raise UserError(self._refusal(there))

    def _wait_for_death(self, there: Owner) -> None:
        """Returns if a lock is stale."""
        alive = there.lives()
        if alive is None:
            # The clocks of two hosts may differ: what counts is whether beats still come.
            seconds = _STALE * self._beat
            log.warning("%s is locked by %s; waiting %.0f s for a sign of life", self._path.parent, there, seconds)
            end = time.monotonic() + seconds
            while time.monotonic() < end and not alive:
                time.sleep(min(self._beat / 5, 1.0))
                now = self._read()
                alive = now is not None and (now.token, now.beats) != (there.token, there.beats)
        if alive:
            raise UserError(self._refusal(there))
        log.warning("%s was locked by %s, which is gone; taken over", self._path.parent, there)

    def _refusal(self, there: Owner | None) -> str:
        return (
            f"--workdir={self._path.parent} is in use by {there or 'another run'}; wait for it, end it, or use another "
            f"workdir (if it is surely gone, remove {self._path})"
        )

    def _read(self) -> Owner | None:
        try:
            return Owner(**json.loads(read_bytes(self._path) if is_remote(self._path) else self._path.read_bytes()))
        except FileNotFoundError:
            return None
        except StorageError:  # whether another run is there is not known
            raise
        except (OSError, ValueError, TypeError):  # half written, by one who died of it
            return Owner("", "an unknown host", "", 0, "", 0.0, 0.0)

    def _keep(self) -> None:
        beats = 0
        while not self._over.wait(self._beat):
            beats += 1
            with contextlib.suppress(OSError, StorageError):  # for those to say who cannot do without a sound disk
                there = self._read()
                if there is not None and there.token not in ("", self._owner.token):
                    self._lost = True
                    return
                self._write({**asdict(self._owner), "beat": time.time(), "beats": beats})

    def _write(self, owner: dict[str, Any]) -> None:
        data = f"{json.dumps(owner)}\n".encode()
        if is_remote(self._path):
            write_bytes(self._path, data)
            return
        partial = self._path.with_name(f"{FILE}.{self._owner.token}")
        partial.write_bytes(data)
        partial.replace(self._path)


def _machine() -> str:
    """The boot and the namespace of process numbers; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began, as the kernel counts; empty if there is none, or one that only waits to be noticed."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]
