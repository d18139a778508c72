"""Goodput: where the wall time of a run goes, from its first start on and over all restarts."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jax import monitoring

log = logging.getLogger("medjax")

FILE = "goodput.json"
PARTS = ("init", "compile", "step", "data_wait", "eval", "save", "lost", "down")
_REDONE = ("step", "data_wait", "eval", "save")  # what a step behind the newest checkpoint has cost
_COMPILATION = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_MARKS = 64


class Goodput:
    """A stopwatch that is always in one of `PARTS`, so that they add up to the wall time.

    init: from the start of the trainer to the first step, with the restore. compile: tracing and compiling, of which
    JAX itself tells, whatever part they fall into. step: the devices work. data_wait: they wait for data. eval, save.
    lost: what was spent on steps that had to be done again, since no checkpoint had them. down: from the last record of
    one start to the next start: queues, machines that boot, and the steps after the last record.

    path: a JSON file that carries the seconds from start to start; None keeps nothing, as all processes but the first.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._part, self._since = "init", time.monotonic()
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._marks: list[tuple[int, dict[str, float]]] = []
        self._earlier = self._read()
        self._compiled: list[tuple[float, float]] = []
        self._thread = threading.get_ident()
        monitoring.register_event_duration_secs_listener(self._on_event)

    def _read(self) -> dict[str, float]:
        earlier = dict.fromkeys(PARTS, 0.0)
        self.starts = 1
        if self._path is None or not self._path.is_file():
            return earlier
        try:
            found: dict[str, Any] = json.loads(self._path.read_text())
            earlier |= {k: float(found["seconds"][k]) for k in PARTS}
            self._marks = [(int(step), {k: float(m[k]) for k in _REDONE}) for step, m in found["marks"]]
            earlier["down"] += max(time.time() - found["recorded"], 0.0)
            self.starts = found["starts"] + 1
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s); the time of earlier starts is not counted", self._path, error)
            return dict.fromkeys(PARTS, 0.0)
        return earlier

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Around what is of this part; the part that it interrupts goes on after it."""
        outer = self._part
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    @contextlib.contextmanager
    def waiting(self, idle: Callable[[], bool]) -> Iterator[None]:
        """Around the wait for data, which counts as such if the devices have nothing left to do at its end."""
        self._switch(self._part)
        before = self._seconds["data_wait"]
        with self.part("data_wait"):
            yield
        if not idle():
            waited = self._seconds["data_wait"] - before
            self._seconds["data_wait"] -= waited
            self._seconds["step"] += waited

    @contextlib.contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Around the save of a checkpoint: what comes after it is what a restart from it loses."""
        with self.part("save"):
            yield
        total = self.seconds()
        self._marks = [*self._marks, (step, {k: total[k] for k in _REDONE})][-_MARKS:]
        self.record()

    def training_from(self, step: int) -> None:
        """The steps begin, or begin again, behind the checkpoint of this step, 0 for none: those after it are lost."""
        total = self.seconds()
        self._switch("step")
        while self._marks and self._marks[-1][0] > step:
            self._marks.pop()
        kept = self._marks[-1][1] if self._marks else dict.fromkeys(_REDONE, 0.0)
        for name in _REDONE:
            lost = max(total[name] - kept[name], 0.0)
            self._earlier[name] -= lost
            self._earlier["lost"] += lost
        self.record()

    def here(self) -> dict[str, float]:
        """Seconds of every part since this start; what of them was lost later is not taken off."""
        self._switch(self._part)
        return dict(self._seconds)

    def seconds(self) -> dict[str, float]:
        """Seconds of every part since the first start of the run."""
        return {k: self._earlier[k] + x for k, x in self.here().items()}

    def row(self) -> dict[str, float]:
        """What metrics.jsonl keeps: seconds by part, of wall time, and the share that went into steps that count."""
        seconds = self.seconds()
        wall = sum(seconds.values())
        parts = {f"goodput/{k}_seconds": x for k, x in seconds.items()}
        return parts | {"goodput/wall_seconds": wall, "goodput/share": seconds["step"] / max(wall, 1e-9)}

    def summary(self) -> str:
        """One line for the end of the log."""
        seconds = self.seconds()
        wall = max(sum(seconds.values()), 1e-9)
        shares = ", ".join(f"{k.replace('_', ' ')} {x / wall:.1%}" for k, x in seconds.items() if x)
        return f"wall time since the first of {self.starts} starts {wall:.0f} s: {shares}"

    def record(self) -> None:
        """Writes the file; a disk that is full is for those to say who cannot do without it."""
        if self._path is None:
            return
        found = {"recorded": time.time(), "starts": self.starts, "seconds": self.seconds(), "marks": self._marks}
        written = self._path.with_name(f"{self._path.name}.partial")
        try:
            written.write_text(json.dumps(found) + "\n")
            written.replace(self._path)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)

    def close(self) -> None:
        """Writes the file, says the summary in the log, and stops listening."""
        self.record()
        log.info(self.summary())
        monitoring.unregister_event_duration_listener(self._on_event)

    def _switch(self, name: str) -> None:
        now = time.monotonic()
        self._seconds[self._part] += now - self._since
        self._part, self._since = name, now

    def _on_event(self, event: str, duration: float, **_: Any) -> None:
        if event not in _COMPILATION or threading.get_ident() != self._thread:
            return
        self._switch(self._part)
        start = self._since - duration
        inside = sum(s for end, s in self._compiled if end > start)  # one trace calls for others
        self._compiled = [x for x in self._compiled if x[0] <= start] + [(self._since, duration)]
        self._seconds[self._part] -= duration - inside
        self._seconds["compile"] += duration - inside
