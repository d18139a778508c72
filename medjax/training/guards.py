"""What stops a run before it wastes time or keeps what is spoilt: bad steps, unusable examples, a loss that jumps."""

import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from medjax.data import Batch
from medjax.data.sampling.ledger import Ledger
from medjax.errors import UserError
from medjax.sharding import is_main
from medjax.training.experiment import Experiment

log = logging.getLogger("medjax")

SKIPPED = "skipped.jsonl"
_FLOOR = 1e-3  # of the median: losses that hardly vary make no spike of the last digit
_NORMAL = 1.4826  # standard deviations of a normal distribution in a median absolute deviation


@dataclass(frozen=True)
class Done:
    """A step that the devices have been given. batch: of this process."""

    step: int
    metrics: Mapping[str, jax.Array]
    batch: Batch


class Spike(Exception):  # noqa: N818 - no error
    """The loss jumped at a step, which makes the run go back."""

    def __init__(self, step: int):
        super().__init__(f"the loss jumped at step {step}")
        self.step = step


class Rollback(Exception):  # noqa: N818 - no error
    """Go on from the newest checkpoint. seen: examples behind it and left out. count: rollbacks, with this one."""

    def __init__(self, seen: int, count: int):
        super().__init__(f"going back to the newest checkpoint, on from example {seen}")
        self.seen, self.count = seen, count


class Guards:
    """Looks at the metrics of every step, in all processes alike.

    ledger: of what could not be used so far. before: what `state` gave when the checkpoint was saved. rollbacks: so
    far.
    """

    def __init__(self, experiment: Experiment, ledger: Ledger, workdir: Path, before: Mapping[str, Any]):
        self._experiment, self._ledger, self._workdir = experiment, ledger, workdir
        self._unusable = ledger.total()
        self._losses = deque(before.get("losses", ()), maxlen=experiment.train.spike_window)
        self.rollbacks = before.get("rollbacks", 0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a run that goes on judges as one that never stopped."""
        return {"losses": list(self._losses), "rollbacks": self.rollbacks}

    def check(self, done: Done) -> None:
        """Writes down the examples of a step that was skipped.

        Raises:
          UserError: the run must not go on.
          Spike: it must go on from the checkpoint before.
        """
        self._check_usable(done.step, 1 - float(done.metrics["train/valid_fraction"]))
        if bad := int(done.metrics["train/bad_steps"]):
            self._skipped(done)
            self._check_finite(done.step, bad)
        elif self._experiment.train.spike_deviations:
            self._check_spike(done.step, float(done.metrics["train/loss"]))

    def _skipped(self, done: Done) -> None:
        ids = np.where(done.batch.valid[:, None], done.batch.ids["example"], 0).astype(np.uint32)
        if jax.process_count() > 1:
            ids = np.asarray(multihost_utils.process_allgather(ids)).reshape(-1, 2)
        log.warning(
            "step %d: loss or gradient is not finite; it changes nothing, %s names its examples", done.step, SKIPPED
        )
        if is_main():
            path = self._workdir / SKIPPED
            before = path.read_text() if path.exists() else ""  # an object store knows no appending
            names = dict.fromkeys(x.tobytes().hex() for x in ids if x.any())  # processes may share rows
            row = {"step": done.step, "examples": list(names)}
            path.write_text(f"{before}{json.dumps(row)}\n")

    def _check_finite(self, step: int, bad: int) -> None:
        if bad >= self._experiment.train.max_bad_steps:
            raise UserError(
                f"loss or gradient was not finite in {bad} steps in a row, the last {step}; they changed nothing, and "
                f"the newest checkpoint is sound. Look at the examples that {self._workdir / SKIPPED} names, or lower "
                "config.optimizer.lr"
            )

    def _check_usable(self, step: int, invalid: float) -> None:
        data = self._experiment.data
        if invalid > data.max_invalid_fraction:
            raise UserError(
                f"{invalid:.1%} of the examples of step {step} cannot be used, more than "
                f"config.data.max_invalid_fraction={data.max_invalid_fraction}; train.log says why"
            )
        self._unusable += round(invalid * data.batch_size)
        if 0 < data.max_invalid < self._unusable:
            raise UserError(
                f"{self._unusable} examples up to step {step} cannot be used, more than config.data.max_invalid="
                f"{data.max_invalid}: {self._ledger}; train.log says why"
            )

    def _check_spike(self, step: int, loss: float) -> None:
        train, losses = self._experiment.train, np.array(self._losses)
        if len(losses) == train.spike_window:
            median = float(np.median(losses))
            deviation = max(_NORMAL * float(np.median(np.abs(losses - median))), _FLOOR * abs(median))
            if loss > median + train.spike_deviations * deviation:
                self._spiked(step, loss, median, (loss - median) / deviation)
        self._losses.append(loss)

    def _spiked(self, step: int, loss: float, median: float, deviations: float) -> None:
        train = self._experiment.train
        what = f"loss {loss:.4g} at step {step} is {deviations:.1f} deviations above the median {median:.4g}"
        if not train.max_rollbacks:
            log.warning("%s of the last %d steps", what, train.spike_window)
            return
        if self.rollbacks >= train.max_rollbacks:
            raise UserError(
                f"{what}, after config.train.max_rollbacks={train.max_rollbacks} rollbacks; lower config.optimizer.lr, "
                "or allow more"
            )
        log.warning("%s of the last %d steps; going back to the checkpoint before", what, train.spike_window)
        raise Spike(step)
