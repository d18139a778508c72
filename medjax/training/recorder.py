"""What a run keeps of itself: validation, the best checkpoint, the latest ones, and where it goes on."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medjax.checkpoints import CheckpointStore, mirror
from medjax.data import Dataset
from medjax.data.privacy import licence
from medjax.errors import UserError
from medjax.methods.encoder import FOLDERS
from medjax.sharding import is_main, sum_over_processes
from medjax.training.experiment import Experiment
from medjax.training.goodput import Goodput
from medjax.training.guards import Guards, Rollback
from medjax.training.room import check_room, state_bytes
from medjax.training.state import StateFactory, TrainState

log = logging.getLogger("medjax")


class Recorder:
    """The checkpoints of a run. step: of the newest sound one, None at the start. seen: examples behind it, also those
    left out by a rollback. evaluated: the last step that was.

    rollback: what made the run go back to its newest checkpoint. All processes must make the same calls.
    """

    def __init__(
        self, experiment: Experiment, dataset: Dataset, workdir: Path, goodput: Goodput, rollback: Rollback | None
    ):
        self._experiment, self._dataset, self._workdir, self._goodput = experiment, dataset, workdir, goodput
        train = experiment.train
        keep, background = (train.keep, train.keep_every_steps), train.async_checkpoints
        self._store = CheckpointStore(workdir / FOLDERS["last"], *keep, background=background)
        self._best = CheckpointStore(workdir / FOLDERS["best"], keep=1, background=background)
        self._best_value: float | None = None
        self._validation: dict[str, float] = {}
        self.ledger = dataset.ledger()
        self._unusable = self.ledger.counted.copy()
        self.step, self.seen, self.evaluated, self._judged = self._store.latest_valid_step(), 0, None, {}
        if self.step is not None:
            self._read(self._store.meta(self.step))
        if rollback is not None:
            self._go_back(rollback)
        self.guards = Guards(experiment, self.ledger, workdir, self._judged)

    def _read(self, meta: Mapping[str, Any]) -> None:
        self.seen, self.evaluated = meta["examples_seen"], meta.get("evaluated", self.step)
        self._best_value, self._validation = meta["best_value"], meta["validation"]
        self._judged = meta.get("guards", {})
        self.ledger.restore(meta.get("ledger", {}))

    def _go_back(self, rollback: Rollback) -> None:
        """Steps after the newest checkpoint are done again, on other examples."""
        self.seen, self._judged = rollback.seen, {**self._judged, "rollbacks": rollback.count}
        if self._best.set_aside_after(self.step or 0, "the run went back to before it"):
            self._best_value = None  # the one before may be gone

    def check_room(self, state: TrainState) -> None:
        """Raises UserError where the next checkpoints have no room. state: arrays or their shapes."""
        if is_main():
            # Of a fresh run also the untrained parameters and the best ones.
            size = state_bytes(state) + (2 * state_bytes(state.params) if self.step is None else 0)
            check_room(self._workdir, size, "the run", UserError)

    def restore(self, factory: StateFactory) -> TrainState:
        """The state of the newest sound checkpoint."""
        abstract = factory.abstract()
        rest, cast = abstract.without_params(), self._experiment.train.restore_cast
        params, rest, _ = self._store.restore(self.step, abstract.params, rest, cast)
        log.info("going on from step %d", self.step)
        return TrainState(params=params, **rest)

    def count(self) -> None:
        """All batches that were handed out so far are trained on."""
        self._unusable = self.ledger.counted.copy()

    def keep_validation(self, state: TrainState, step: int, found: dict[str, float], candidate: bool) -> None:
        """Takes the scores of a state on the validation split. candidate: it is kept if it is the best so far."""
        self._validation, self.evaluated = found, step
        shown = (f"{k.split('/')[1]} {v:.4f}" for k, v in found.items() if k.count("/") == 1)
        log.info("validation at step %d: %s", step, ", ".join(shown))
        if candidate:
            self._keep_best(state, step)

    def _keep_best(self, state: TrainState, step: int) -> None:
        name = self._experiment.train.best_metric
        if name not in self._validation:
            raise UserError(
                f"config.train.best_metric={name!r} is not measured; there are {', '.join(self._validation)}"
            )
        value = self._validation[name] * (1 if name.endswith("loss") else -1)
        if math.isfinite(value) and (self._best_value is None or value < self._best_value):
            self._best_value = value
            with self._goodput.part("save"):
                self._best.save(step, state.params, state.for_evaluation(), self._meta(step))

    def save(self, state: TrainState, step: int) -> None:
        """Saves a step among the latest."""
        self._best.wait()  # what a checkpoint calls the best is there
        if is_main():
            check_room(self._workdir, state_bytes(state), f"the checkpoint of step {step}")
        mirror.flush(self._workdir)
        with self._goodput.saving(step):
            self._store.save(step, state.params, state.without_params(), self._meta(step))

    def seen_at(self, step: int) -> int:
        """How many examples are behind a step."""
        return self.seen + (step - (self.step or 0)) * self._experiment.data.batch_size

    def _meta(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "examples_seen": self.seen_at(step),
            "licence": str(licence.of(self._dataset.manifest)),
            "ledger": self.ledger.as_dict(sum_over_processes(self._unusable)),
            "guards": self.guards.state(),
            "evaluated": self.evaluated,
            "best_value": self._best_value,
            "validation": self._validation,
        }

    def close(self) -> None:
        """Waits until all is written."""
        with self._goodput.part("save"):
            self._store.close()
            self._best.close()
