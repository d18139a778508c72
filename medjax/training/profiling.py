"""Traces of a few steps for TensorBoard, XProf or Perfetto: asked for before the run, or while it runs."""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from medjax.errors import UserError

log = logging.getLogger("medjax")

FOLDER, TRIGGER = "profile", "profile_now"
_STEPS = 5  # that an empty trigger asks for
_LOOK_EVERY = 2.0  # seconds; a look at a bucket costs tens of milliseconds


class Profiler:
    """Runs the steps, and traces those of `steps` ("10:15": from step 10 to step 15) in every process, or the next
    ones in the first process when a file `profile_now` appears in the workdir; a number in it says how many.

    Traces are written to `profile/` in the workdir, of several processes to a folder each.
    """

    def __init__(self, workdir: Path, steps: str):
        self._trigger, self._folder = workdir / TRIGGER, workdir / FOLDER
        if jax.process_count() > 1:
            self._folder /= f"process_{jax.process_index()}"
        self._first, self._last = _parse(steps)
        self._tracing, self._looked = False, 0.0

    def __call__(self, number: int, step: Callable, *args: Any) -> Any:
        """What `step(*args)` returns; `number` is how the trace names it."""
        self._look(number)
        if not self._tracing and self._first <= number <= self._last:
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.block_until_ready(args)  # what the devices still do belongs to the steps before
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            out = step(*args)
        if self._tracing and number >= self._last:
            jax.block_until_ready(out)
            self.close()
        return out

    def close(self) -> None:
        """Ends a trace that has begun."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            log.info("a trace of the steps up to %d is in %s", self._last, self._folder)

    def _look(self, number: int) -> None:
        if jax.process_index() or self._tracing or time.monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = time.monotonic()
        if self._trigger.is_file():
            wanted = self._trigger.read_text().strip()
            self._trigger.unlink()
            self._first = number
            self._last = number - 1 + (int(wanted) if wanted.isdigit() and int(wanted) else _STEPS)


def _parse(steps: str) -> tuple[int, int]:
    """First and last step; (0, -1), which no step lies between, for none."""
    if not steps:
        return 0, -1
    found = re.fullmatch(r"(\d+):(\d+)", steps)
    if not found or not 0 < int(found[1]) <= int(found[2]):
        raise UserError(f"config.train.profile_steps={steps!r} must be FIRST:LAST, two steps such as 10:15")
    return int(found[1]), int(found[2])
