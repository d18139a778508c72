"""A progress bar on stderr; lines now and then where stderr is no terminal."""

import sys
import time
from collections.abc import Callable

_WIDTH = 30
_EVERY = {True: 0.1, False: 30.0}  # seconds between two of them: on a terminal, in a log


class Progress:
    """Called with (done, total) as often as one likes; what was done before the first call does not count as speed."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic):
        self._what, self._clock = what, clock
        self._started: tuple[float, int] | None = None
        self._shown = -float("inf")

    def __call__(self, done: int, total: int) -> None:
        """Shows it, if that is not too soon after the last time."""
        now = self._clock()
        first = self._started is None
        if first:
            self._started = now, done
        terminal = sys.stderr.isatty()
        if done < total and (first or now - self._shown < _EVERY[terminal]):
            return
        self._shown = now
        line = f"{done}/{total} {self._what}{self._pace(now, done, total)}"
        if not terminal:
            sys.stderr.write(line + "\n")
        else:
            filled = _WIDTH * done // max(total, 1)
            sys.stderr.write(f"\r[{'#' * filled}{'.' * (_WIDTH - filled)}] {line}\x1b[K" + "\n" * (done == total))
        sys.stderr.flush()

    def _pace(self, now: float, done: int, total: int) -> str:
        since, before = self._started
        if now <= since or done <= before:
            return ""
        rate = (done - before) / (now - since)
        minutes, seconds = divmod(round((total - done) / rate), 60)
        return f", {rate:.3g}/s, {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
