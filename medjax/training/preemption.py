"""Being asked to leave: a signal to any process becomes one answer, the same in all of them at the same point."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

log = logging.getLogger("medjax")

EXIT_INTERRUPTED = 128 + signal.SIGINT  # as shells have it: a person wants this to end, and no launcher to go on
_ASK = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_REPORT = (signal.SIGQUIT, signal.SIGUSR2)


class Leave(Exception):  # noqa: N818 - no error
    """A poll found that the run is asked to leave: save, and raise `Preempted`."""


class Preempted(Exception):  # noqa: N818 - no error
    """The run has left, with all that is needed to go on. interrupted: a person asked for it, with Ctrl-C."""

    def __init__(self, step: int, interrupted: bool):
        super().__init__(f"asked to leave after step {step}, which is saved; the same command goes on from there")
        self.interrupted = interrupted


class Preemption:
    """Whether the run is asked to leave.

    SIGTERM, SIGUSR1 (what SLURM's `--signal=USR1@120` sends early) and the first SIGINT ask; a second SIGINT ends the
    process at once. With several processes one that is asked asks all.
    """

    def __init__(self):
        self._asked, self._interrupts, self._polls = threading.Event(), 0, 0

    @contextlib.contextmanager
    def listening(self, report: Callable[[], None]) -> Iterator["Preemption"]:
        """Catches signals within; of a thread that is not the main one nothing, since Python cannot.

        report: called on SIGQUIT and SIGUSR2.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        # JAX's own handler of SIGTERM is what tells the other processes.
        caught = [s for s in (*_ASK, *_REPORT) if s != signal.SIGTERM or not _several()]
        read, write = socket.socketpair()
        write.setblocking(False)
        before = {s: signal.signal(s, lambda *_: None) for s in caught}
        # A thread hears of signals at once, while the main one may be compiling for minutes.
        outer = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(read, report), name="medjax-signals", daemon=True).start()
        try:
            yield self
        finally:
            signal.set_wakeup_fd(outer)
            for number, handler in before.items():
                signal.signal(number, handler)
            write.close()

    def _listen(self, read: socket.socket, report: Callable[[], None]) -> None:
        with read:
            while numbers := read.recv(64):
                for number in numbers:
                    if number in _REPORT:
                        report()
                    elif number in _ASK:
                        self._ask(number)

    def _ask(self, number: int) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            sys.stderr.write("interrupted twice: nothing more is saved\n")
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
        if not self._asked.is_set():
            log.warning("%s: the run saves as soon as it can, and leaves", signal.Signals(number).name)
        self._asked.set()
        if _several():
            os.kill(os.getpid(), signal.SIGTERM)

    def poll(self) -> None:
        """Raises Leave once the run is asked to leave; all processes must call it alike, and all get the same."""
        self._polls += 1
        if multihost_utils.reached_preemption_sync_point(self._polls) if _several() else self._asked.is_set():
            raise Leave

    def poll_alone(self) -> None:
        """The same at points that the processes do not have in common; it never answers where there are several."""
        if not _several():
            self.poll()

    def preempted(self, step: int) -> Preempted:
        """What to raise once a step is saved."""
        return Preempted(step, self._interrupts > 0)


def _several() -> bool:
    return jax.distributed.is_initialized()
