"""Metrics to files: JSON lines always, TensorBoard events, Weights & Biases on request; and the console line."""

import contextlib
import json
import logging
import math
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medjax.errors import UserError

log = logging.getLogger("medjax")


class MetricWriter:
    """Writes rows of metrics. `active` is false on all processes but the first, which then write nothing."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], wandb_project: str, active: bool):
        self._file = self._events = self._wandb = None
        if not active:
            return
        from tensorboardX import SummaryWriter

        self._file = (workdir / "metrics.jsonl").open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"))
        if wandb_project:
            self._wandb = _start_wandb(workdir, config, wandb_project)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row; numbers that are not finite are written as null in JSON."""
        if self._file is None or self._events is None:
            return
        row = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(dict(values), step=step)

    def close(self) -> None:
        """Flushes everything."""
        if self._file is not None and self._events is not None:
            self._file.close()
            self._events.close()
        if self._wandb:
            self._wandb.finish()


def _start_wandb(workdir: Path, config: Mapping[str, Any], project: str):
    try:
        import wandb
    except ImportError:
        raise UserError(
            "config.train.wandb_project needs the package wandb; pip install wandb, or leave it empty"
        ) from None
    name = workdir / "wandb_id"
    if not name.is_file():
        name.write_text(uuid.uuid4().hex)
    return wandb.init(project=project, dir=str(workdir), config=_public(config), id=name.read_text(), resume="allow")


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the places of files."""
    return {k: _public(v) if isinstance(v, Mapping) else v for k, v in config.items() if k not in ("dir", "source_dir")}


class Progress:
    """Steps, loss, examples/s and time to go: one line that moves on a terminal, plain lines elsewhere.

    The first step, which compiles, and what is done within `paused` are not timed.
    """

    def __init__(self, total: int, examples_per_step: int):
        self._total, self._per_step = total, examples_per_step
        self._terminal = sys.stderr.isatty()
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._mark: tuple[int, float] | None = None

    def tick(self, step: int) -> None:
        """Called after every step."""
        if self._mark is None:
            self._mark = (step, time.monotonic())

    @contextlib.contextmanager
    def paused(self, step: int) -> Iterator[None]:
        """Around what is not training: evaluation, saving."""
        self._steps, self._seconds = self._timed(step)
        self._mark = None
        yield
        self._mark = (step, time.monotonic())

    @contextlib.contextmanager
    def waiting(self, idle: Callable[[], bool]) -> Iterator[None]:
        """Around the wait for data, which counts if the devices have nothing left to do at its end."""
        then = time.monotonic()
        yield
        if self._mark is not None and idle():
            self._waited += time.monotonic() - then

    def data_wait(self, step: int) -> float:
        """The share of the timed steps in which devices waited for data, at most: when they ran dry is not known."""
        _, seconds = self._timed(step)
        return self._waited / seconds if seconds else 0.0

    def _timed(self, step: int) -> tuple[int, float]:
        if self._mark is None:
            return self._steps, self._seconds
        first, then = self._mark
        return self._steps + step - first, self._seconds + time.monotonic() - then

    def examples_per_second(self, step: int) -> float:
        """Of all processes together, over all timed steps; 0 before any."""
        steps, seconds = self._timed(step)
        return steps * self._per_step / seconds if steps else 0.0

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints the line of a step."""
        rate = self.examples_per_second(step)
        parts = [f"step {step}/{self._total}", f"loss {metrics['train/loss']:.4f}"]
        if rate:
            parts += [f"{rate:.0f} examples/s", f"{_clock((self._total - step) * self._per_step / rate)} to go"]
        line = ", ".join(parts)
        log.info(line)
        if self._terminal:
            sys.stderr.write(f"\r{line}\x1b[K" + ("\n" if step >= self._total else ""))
            sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


def start_logging(workdir: Path, active: bool) -> None:
    """Sends the log to workdir/train.log, and to the console where it is no terminal (there `Progress` writes)."""
    log.setLevel(logging.INFO)
    log.handlers.clear()
    log.propagate = False
    if not active:
        return
    to_file = logging.FileHandler(workdir / "train.log")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(to_file)
    console = logging.StreamHandler(sys.stderr)
    # On a terminal the line that moves gives way to what stays.
    console.setFormatter(logging.Formatter("\r%(message)s\x1b[K" if sys.stderr.isatty() else "%(message)s"))
    if sys.stderr.isatty():
        console.addFilter(lambda record: not record.getMessage().startswith("step "))
    log.addHandler(console)
