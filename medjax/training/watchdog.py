"""A run that no longer moves says where it stands, and makes way for a new start."""

import contextlib
import faulthandler
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from medjax.errors import EXIT_HUNG

log = logging.getLogger("medjax")

_LONGER = 4  # times as long, where compilation comes before the next sign of life


class Watchdog:
    """Waits for signs of life, and calls `report` when none comes.

    seconds: the longest time between two signs of life, 0 for any. leave: the process then ends with status 76.
    """

    def __init__(self, seconds: float, leave: bool, report: Callable[[], None]):
        self._seconds, self._leave, self._report = seconds, leave, report
        self._over = threading.Event()
        self.expect_compilation()  # and restoring

    @contextlib.contextmanager
    def watching(self) -> Iterator["Watchdog"]:
        """Watches within."""
        if self._seconds:
            threading.Thread(target=self._watch, name="medjax-watchdog", daemon=True).start()
        try:
            yield self
        finally:
            self._over.set()

    def beat(self) -> None:
        """A sign of life: a step or a part of an evaluation is done."""
        self._last, self._limit = time.monotonic(), self._seconds

    def expect_compilation(self) -> None:
        """The next sign of life may take longer."""
        self._last, self._limit = time.monotonic(), _LONGER * self._seconds

    def _watch(self) -> None:
        while not self._over.wait(min(self._seconds / 10, 5.0)):
            silent = time.monotonic() - self._last
            if silent <= self._limit:
                continue
            log.error("nothing has moved for %.0f s (config.train.hang_seconds=%g)", silent, self._seconds)
            self._report()
            if self._leave:
                os._exit(EXIT_HUNG)
            self._limit = float("inf")  # until the next sign of life


def report(folder: Path, process: int) -> None:
    """Dumps the stacks of all threads to `stacks-<process>.txt` in a folder, after what is there, and to stderr."""
    # faulthandler writes to files of this machine alone.
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = f"{datetime.now():%Y-%m-%d %H:%M:%S} process {process}, pid {os.getpid()}\n{file.read()}\n"
    sys.stderr.write(text)
    sys.stderr.flush()
    path = folder / f"stacks-{process}.txt"
    try:
        before = path.read_text() if path.exists() else ""
        path.write_text(before + text)  # an object store knows no appending
    except OSError as error:
        log.error("%s cannot be written: %s", path, error)
