"""Metrics to files: JSON lines always, TensorBoard events, Weights & Biases on request; and the console line."""

import json
import logging
import math
import sys
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax.errors import UserError
from medjax.methods import Method
from medjax.sharding.chips import chip_of
from medjax.training.experiment import Experiment
from medjax.training.flops import model_flops
from medjax.training.goodput import Goodput
from medjax.training.state import StateFactory

log = logging.getLogger("medjax")


class MetricWriter:
    """Writes rows of metrics. `active` is false on all processes but the first, which then write nothing. step: that
    the run goes on from; TensorBoard forgets later ones, which are done again.
    """

    def __init__(self, workdir: Path, config: Mapping[str, Any], wandb_project: str, active: bool, step: int = 0):
        self._file = self._events = self._wandb = None
        if not active:
            return
        from tensorboardX import SummaryWriter

        self._file = (workdir / "metrics.jsonl").open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
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


_PLACES = ("dir", "source_dir", "cache_dir")


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the places of files."""
    return {k: _public(v) if isinstance(v, Mapping) else v for k, v in config.items() if k not in _PLACES}


@dataclass(frozen=True)
class Work:
    """What a step is measured by. examples: of the global batch. devices: of all processes. flops: model FLOPs of a
    step, see `medjax.training.flops.model_flops`. peak: FLOP/s that one device can do at most; None if not known.
    """

    examples: int
    devices: int = 1
    flops: float = 0.0
    peak: float | None = None

    @classmethod
    def of(cls, experiment: Experiment, method: Method, factory: StateFactory, mesh: jax.sharding.Mesh) -> "Work":
        """Of a stage on a mesh that is set."""
        state = factory.abstract()
        flops = model_flops(method, state.params, state.method, factory.batch)
        chip = chip_of(mesh.devices.flat[0].device_kind)
        peak = experiment.train.peak_flops or (chip.flops if chip else None)
        return cls(experiment.data.batch_size, mesh.size, flops, peak)


class Progress:
    """Speed, and one line that moves on a terminal, plain lines elsewhere.

    Speed is over the steps of this start after its first, in the time that `Goodput` counts as step or data wait: so
    without compilation, evaluation and saving.
    """

    def __init__(self, total: int, work: Work, goodput: Goodput):
        self._total, self._work, self._goodput = total, work, goodput
        self._terminal = sys.stderr.isatty()
        self._first: tuple[int, float, float] | None = None
        self._last = 0.0
        self._durations: deque[float] = deque(maxlen=1000)

    def _seconds(self) -> tuple[float, float]:
        """Of steps and data wait together, and of data wait."""
        here = self._goodput.here()
        return here["step"] + here["data_wait"], here["data_wait"]

    def tick(self, step: int) -> None:
        """Called after every step."""
        seconds, waited = self._seconds()
        if self._first is None:
            self._first = step, seconds, waited
        else:
            self._durations.append(seconds - self._last)
        self._last = seconds

    def _timed(self, step: int) -> tuple[int, float, float]:
        """Steps, their seconds, and how much of these was data wait."""
        first, then, waited_then = self._first or (step, *self._seconds())
        seconds, waited = self._seconds()
        return step - first, seconds - then, waited - waited_then

    def examples_per_second(self, step: int) -> float:
        """Of all processes together, over all timed steps; 0 before any."""
        steps, seconds, _ = self._timed(step)
        return steps * self._work.examples / seconds if steps else 0.0

    def row(self, step: int) -> dict[str, float]:
        """Speed as metrics.jsonl keeps it.

        data_wait: the share of the timed steps in which devices waited for data, at most: when they ran dry is not
        known. step_seconds_p50 and _p95: percentiles of the last 1000 steps as the host sees them.
        flops_per_second_per_device: model FLOPs. mfu: these as a share of what a device can do, where that is known.
        device_memory_peak_bytes: the largest of this process's devices, where they tell.
        """
        steps, seconds, waited = self._timed(step)
        rate = self.examples_per_second(step)
        per_device = rate / self._work.devices
        out = {"data_wait": waited / seconds if steps else 0.0, "examples_per_second": rate}
        out["examples_per_second_per_device"] = per_device
        if self._durations:
            p50, p95 = np.percentile(list(self._durations), (50, 95))
            out |= {"step_seconds_p50": float(p50), "step_seconds_p95": float(p95)}
        if self._work.flops:
            out["flops_per_second_per_device"] = flops = per_device / self._work.examples * self._work.flops
            if self._work.peak:
                out["mfu"] = flops / self._work.peak
        if peak := memory_peak():
            out["device_memory_peak_bytes"] = float(peak)
        return {f"train/{k}": v for k, v in out.items()}

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints the line of a step."""
        rate = self.examples_per_second(step)
        parts = [f"step {step}/{self._total}", f"loss {metrics['train/loss']:.4f}"]
        if rate:
            parts += [
                f"{rate:.0f} examples/s",
                *([f"MFU {metrics['train/mfu']:.0%}"] if "train/mfu" in metrics else []),
            ]
            parts += [f"{_clock((self._total - step) * self._work.examples / rate)} to go"]
        line = ", ".join(parts)
        log.info(line)
        if self._terminal:
            sys.stderr.write(f"\r{line}\x1b[K" + ("\n" if step >= self._total else ""))
            sys.stderr.flush()


def memory_peak() -> int:
    """The largest number of bytes that a device of this process has had in use; 0 where devices do not tell."""
    stats = (d.memory_stats() or {} for d in jax.local_devices())
    return max((s.get("peak_bytes_in_use", 0) for s in stats), default=0)


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
