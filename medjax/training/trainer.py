"""One stage of a run: next batch, step, evaluate, save; and back to where it was after a stop."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import jax

from medjax.data import Batch, Dataset
from medjax.errors import UserError
from medjax.methods import make_method
from medjax.sharding import data_share, is_main, to_global
from medjax.training.experiment import Experiment
from medjax.training.fetching import Fetcher
from medjax.training.goodput import Goodput
from medjax.training.guards import Done, Rollback, Spike
from medjax.training.metrics import MetricWriter, Progress, Work
from medjax.training.preemption import Leave
from medjax.training.profiling import Profiler
from medjax.training.program import Program, check_batch
from medjax.training.recorder import Recorder
from medjax.training.rewinding import rewind
from medjax.training.starting import specs, start
from medjax.training.state import TrainState
from medjax.training.survival import Survival
from medjax.training.validate import Validator

log = logging.getLogger("medjax")


class Trainer:
    """One stage in its workdir, on a mesh that is set. rollback: what made the run go back to its newest checkpoint."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        workdir: Path,
        mesh: jax.sharding.Mesh,
        goodput: Goodput,
        survival: Survival,
        rollback: Rollback | None = None,
    ):
        _check_devices(experiment, mesh)
        self._experiment, self._dataset, self._workdir, self._mesh = experiment, dataset, workdir, mesh
        self._method = make_method(experiment.method, specs(dataset))
        self._goodput, self._profiler = goodput, Profiler(workdir, experiment.train.profile_steps)
        self._survival = survival
        self._recorder = recorder = Recorder(experiment, dataset, workdir, goodput, rollback)
        examples = dataset.manifest.splits["train"].examples
        self._steps = experiment.steps(examples, recorder.step or 0, recorder.seen)
        batch = self._global(dataset.first_batch(experiment.seed, experiment.data.batch_size, *data_share(self._mesh)))
        program = Program.create(experiment, self._method, mesh, batch, self._steps)
        self._factory, self._step = program.factory, program.step
        self._work = Work.of(experiment, self._method, program.factory, mesh)
        self._validator = Validator(self._method, dataset, mesh, experiment)

    def run(self, stop_at_step: int | None) -> None:
        """Trains to the end, or to `stop_at_step`.

        Raises:
          Preempted: the run was asked to leave, and has saved.
          Rollback: it goes on from its newest checkpoint, with another Trainer.
        """
        self._recorder.check_room(self._factory.abstract())
        self._at = self._recorder.step or 0  # the step that `_state` is of
        self._state = self._restore_or_start()
        self._pending: Done | None = None
        self._last = min(self._steps["total"], stop_at_step or self._steps["total"])
        if self._at >= self._last and not self._owes_evaluation():
            log.info("nothing to do: step %d of %d is reached", self._at, self._last)
            self._recorder.close()
            return
        self._progress = Progress(self._last, self._work, self._goodput)
        self._goodput.training_from(self._at)
        if is_main():
            rewind(self._workdir, self._at, self._owes_evaluation())
        wandb = self._experiment.train.wandb_project
        self._writer = MetricWriter(self._workdir, self._experiment.resolved, wandb, is_main(), self._at)
        self._fetcher = Fetcher(self._batches())
        with contextlib.ExitStack() as stack:
            for part in (self._writer, self._fetcher, self._profiler):
                stack.enter_context(contextlib.closing(part))
            try:
                self._train()
            except Leave:
                self._leave()
            except Spike as spike:
                self._recorder.close()
                raise Rollback(self._recorder.seen_at(spike.step), self._recorder.guards.rollbacks + 1) from None
            self._writer.write(self._last, self._goodput.row())
        self._recorder.close()

    def _train(self) -> None:
        self._survival.poll()
        if self._owes_evaluation():
            self._evaluate()
        self._survival.watchdog.expect_compilation()
        for step in range(self._at + 1, self._last + 1):
            with self._goodput.waiting(self._is_idle):
                batch = self._fetcher.next(self._survival.preemption.poll_alone)
            self._recorder.count()
            self._state, metrics = self._profiler(step, self._step, self._state, self._global(batch))
            self._at = step
            self._progress.tick(step)
            self._log()  # metrics of the step before are fetched while this one runs
            self._pending = Done(step, metrics, batch)
            if self._due("eval_every", step) or self._due("checkpoint_every", step):
                self._log()
                self._evaluate_and_save()
            self._survival.poll()
        self._log()

    def _leave(self) -> None:
        """Saves what there is; an evaluation that had begun is left to the run that goes on."""
        self._log()
        if self._at > (self._recorder.step or 0):
            self._recorder.save(self._state, self._at)
        self._recorder.close()
        raise self._survival.preemption.preempted(self._at) from None

    def _restore_or_start(self) -> TrainState:
        if self._recorder.step is None:
            return start(self._factory, self._experiment, self._dataset, self._workdir)
        return self._recorder.restore(self._factory)

    def _batches(self) -> Iterator[Batch]:
        """Batches of this process from where the run starts."""
        size, recorder = self._experiment.data.batch_size, self._recorder
        return self._dataset.train(self._experiment.seed, recorder.seen, size, *data_share(self._mesh), recorder.ledger)

    def _global(self, batch: Batch) -> Batch:
        return to_global(batch.select(self._method.modalities), self._mesh)

    def _is_idle(self) -> bool:
        return self._pending is None or self._pending.metrics["train/loss"].is_ready()

    def _due(self, what: str, step: int) -> bool:
        return step == self._last or self._is_multiple(what, step)

    def _is_multiple(self, what: str, step: int) -> bool:
        return bool(self._steps[what]) and step % self._steps[what] == 0

    def _is_candidate(self) -> bool:
        """A stop adds an evaluation, but no candidate: the best is that of a run that never stopped."""
        return self._at == self._steps["total"] or self._is_multiple("eval_every", self._at)

    def _owes_evaluation(self) -> bool:
        """Whether the run had to leave where it goes on now, before it could evaluate."""
        return self._at > 0 and self._is_candidate() and self._recorder.evaluated != self._at

    def _log(self) -> None:
        done, self._pending = self._pending, None
        if done is None:
            return
        try:
            self._recorder.guards.check(done)
        except UserError:  # in all processes alike
            self._recorder.close()  # what is being saved is sound, and the program ends at once
            raise
        if done.step == 1 or self._due("log_every", done.step):
            row = {k: float(v) for k, v in done.metrics.items()} | self._progress.row(done.step) | self._goodput.row()
            self._writer.write(done.step, row)
            self._goodput.record()
            self._progress.show(done.step, row)

    def _evaluate_and_save(self) -> None:
        """Evaluation first, so that a checkpoint knows how good it is."""
        if self._due("eval_every", self._at):
            self._evaluate()
        if self._due("checkpoint_every", self._at):
            self._recorder.save(self._state, self._at)

    def _evaluate(self) -> None:
        with self._goodput.part("eval"):
            found = self._validator(self._state, self._survival.poll)
        self._writer.write(self._at, found)
        self._recorder.keep_validation(self._state, self._at, found, self._is_candidate())


def _check_devices(experiment: Experiment, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError for what would fail only after the first step or evaluation."""
    check_batch(experiment, mesh)
    metric = experiment.train.best_metric
    if jax.process_count() > 1 and not metric.endswith("loss"):
        raise UserError(
            f"config.train.best_metric={metric!r} is measured by single processes only; with several pass "
            "--config.train.best_metric=validation/loss"
        )
