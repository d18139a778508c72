"""Batches that are waited for with one eye on what else happens."""

import queue
import threading
from collections.abc import Callable, Iterator

from medjax.data import Batch

_LOOK_EVERY = 0.2  # seconds


class Fetcher:
    """Takes batches from an iterator in a thread of its own, each when it is asked for."""

    def __init__(self, batches: Iterator[Batch]):
        self._batches = batches
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="medjax-data", daemon=True).start()

    def _work(self) -> None:
        while self._wanted.get():
            try:
                self._found.put(next(self._batches))
            except BaseException as error:  # handed to the caller
                self._found.put(error)
        self._batches.close()  # here, since a thread may not close what another is in

    def next(self, look: Callable[[], None]) -> Batch:
        """The next batch; `look` is called now and then while it is waited for, and may raise to give up."""
        self._wanted.put(True)
        while True:
            try:
                found = self._found.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                look()
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def close(self) -> None:
        """Ends the thread after what it is about."""
        self._wanted.put(False)
