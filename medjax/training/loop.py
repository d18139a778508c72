"""The training loop: next batch, step, evaluate, save; and back to where it was after a stop."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from medjax.checkpoints import CheckpointStore
from medjax.data import Batch, Dataset
from medjax.data.device_augment import augment
from medjax.data.privacy import licence
from medjax.errors import UserError
from medjax.methods import Method, make_method
from medjax.methods.encoder import FOLDERS, load_run
from medjax.models.partitioning import axis_rules
from medjax.sharding import ACTIVATION_RULES, BATCH_AXES, describe, is_main, make_mesh, sum_over_processes, to_global
from medjax.training.experiment import Experiment, stages
from medjax.training.metrics import MetricWriter, Progress, start_logging
from medjax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from medjax.training.pretrained import probe_tokenizer, published_weights, settle
from medjax.training.rundir import describe_run
from medjax.training.selection import frozen_names, parameter_names, rate_factors, roots
from medjax.training.state import StateFactory, TrainState
from medjax.training.step import make_train_step
from medjax.training.validate import Validator
from medjax.training.warm_start import take_weights

log = logging.getLogger("medjax")


def run(config: Any, workdir: Path, stop_at_step: int | None = None) -> None:
    """Trains all stages of a recipe; the last in `workdir`, those before it in `workdir/stages/<name>`.

    stop_at_step: leave the last stage there, with a checkpoint, as if the machine had been taken away.

    Raises:
      UserError: anything wrong with the configuration, the data or the state of the workdir.
    """
    plan = stages(config)
    folders = [workdir / "stages" / name for name, _ in plan[:-1]] + [workdir]
    plan = [settle(experiment, folder) for (_, experiment), folder in zip(plan, folders, strict=True)]
    for experiment in plan:  # fails before a device is touched
        make_method(experiment.method, _specs(Dataset.open(experiment.data)))
    previous: Path | None = None
    for experiment, folder in zip(plan[:-1], folders[:-1], strict=True):
        train(_following(experiment, previous), folder)
        previous = folder
    train(_following(plan[-1], previous), workdir, stop_at_step)


def _following(experiment: Experiment, previous: Path | None) -> Experiment:
    return experiment if previous is None or experiment.warm_start.dir else experiment.starting_from(previous)


def _specs(dataset: Dataset) -> dict[str, Any]:
    return {m: t.spec() for m, t in dataset.transforms.items()}


def train(experiment: Experiment, workdir: Path, stop_at_step: int | None = None) -> None:
    """Trains one stage, from its newest sound checkpoint or from the start, to its end."""
    dataset = Dataset.open(experiment.data)
    if is_main():
        describe_run(experiment, workdir, dataset)
    start_logging(workdir, is_main())
    mesh = make_mesh(experiment.mesh)
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        Trainer(experiment, dataset, workdir, mesh).run(stop_at_step)


class Trainer:
    """One stage in its workdir, on a mesh that is set."""

    def __init__(self, experiment: Experiment, dataset: Dataset, workdir: Path, mesh: jax.sharding.Mesh):
        _check_devices(experiment, mesh)
        self._experiment, self._dataset, self._workdir, self._mesh = experiment, dataset, workdir, mesh
        self._method = make_method(experiment.method, _specs(dataset))
        self._store = CheckpointStore(workdir / FOLDERS["last"], experiment.train.keep)
        self._from, self._seen, self._ledger = self._store.latest_valid_step(), 0, dataset.ledger()
        if self._from is not None:
            meta = self._store.meta(self._from)
            self._seen = meta["examples_seen"]
            self._ledger.restore(meta.get("ledger", {}))
        self._unusable = self._ledger.total()
        self._steps = experiment.steps(dataset.manifest.splits["train"].examples, self._from or 0, self._seen)
        schedule = make_schedule(experiment.optimizer, self._steps["total"], self._steps["warmup"])
        batch = self._global(dataset.first_batch(experiment.seed, experiment.data.batch_size, *_place()))
        frozen, factors = _selected(experiment.optimizer, self._method, batch)
        tx = make_optimizer(experiment.optimizer, schedule, factors)
        self._factory = StateFactory(self._method, tx, mesh, batch, frozen)
        self._step = make_train_step(self._method, tx, schedule, experiment.seed, frozen, _augmentation(experiment))
        self._validator = Validator(self._method, dataset, mesh, experiment)
        self._best = CheckpointStore(workdir / FOLDERS["best"], keep=1)
        self._best_value: float | None = None
        self._validation: dict[str, float] = {}

    def run(self, stop_at_step: int | None) -> None:
        """Trains to the end, or to `stop_at_step`."""
        state, start = self._restore_or_start()
        last = min(self._steps["total"], stop_at_step or self._steps["total"])
        if start >= last:
            log.info("nothing to do: step %d of %d is reached", start, last)
            return
        batches = self._batches()
        progress = Progress(last, self._experiment.data.batch_size)
        writer = MetricWriter(self._workdir, self._experiment.resolved, self._experiment.train.wandb_project, is_main())
        with contextlib.closing(writer), contextlib.closing(batches):
            previous: tuple[int, dict[str, jax.Array]] | None = None
            for step in range(start + 1, last + 1):
                with progress.waiting(lambda p=previous: p is None or p[1]["train/loss"].is_ready()):
                    batch = next(batches)
                state, metrics = self._step(state, self._global(batch))
                progress.tick(step)
                if previous is not None:  # metrics of the step before are fetched while this one runs
                    self._log(*previous, writer, progress, last)
                previous = (step, metrics)
                if self._due("eval_every", step, last) or self._due("checkpoint_every", step, last):
                    self._log(*previous, writer, progress, last)
                    previous = None
                    with progress.paused(step):
                        self._evaluate_and_save(state, step, last, writer)
            if previous is not None:
                self._log(*previous, writer, progress, last)
        self._store.close()
        self._best.close()

    def _batches(self) -> Iterator[Batch]:
        """Batches of this process from where the run starts."""
        size = self._experiment.data.batch_size
        return self._dataset.train(self._experiment.seed, self._seen, size, *_place(), self._ledger)

    def _global(self, batch: Batch) -> Batch:
        return to_global(batch.select(self._method.modalities), self._mesh)

    def _due(self, what: str, step: int, last: int) -> bool:
        every = self._steps[what]
        return step == last or bool(every and step % every == 0)

    def _log(
        self, step: int, metrics: dict[str, jax.Array], writer: MetricWriter, progress: Progress, last: int
    ) -> None:
        bad, invalid = int(metrics["train/bad_steps"]), 1 - float(metrics["train/valid_fraction"])
        if bad >= self._experiment.train.max_bad_steps:
            raise UserError(
                f"loss or gradient was not finite in {bad} steps in a row, the last {step}; they changed nothing. "
                "Lower config.optimizer.lr, or look at the data of these steps"
            )
        if invalid > self._experiment.data.max_invalid_fraction:
            raise UserError(
                f"{invalid:.1%} of the examples of step {step} cannot be used, more than "
                f"config.data.max_invalid_fraction={self._experiment.data.max_invalid_fraction}; train.log says why"
            )
        self._unusable += round(invalid * self._experiment.data.batch_size)
        if 0 < self._experiment.data.max_invalid < self._unusable:
            raise UserError(
                f"{self._unusable} examples up to step {step} cannot be used, more than config.data.max_invalid="
                f"{self._experiment.data.max_invalid}: {self._ledger}; train.log says why"
            )
        if step == 1 or self._due("log_every", step, last):
            row = {k: float(v) for k, v in metrics.items()}
            row["train/data_wait"] = progress.data_wait(step)
            row["train/examples_per_second"] = progress.examples_per_second(step)
            writer.write(step, row)
            progress.show(step, row)

    def _evaluate_and_save(self, state: TrainState, step: int, last: int, writer: MetricWriter) -> None:
        """Evaluation first, so that a checkpoint knows how good it is."""
        if self._due("eval_every", step, last):
            self._validation = self._validator(state)
            writer.write(step, self._validation)
            shown = (f"{k.split('/')[1]} {v:.4f}" for k, v in self._validation.items() if k.count("/") == 1)
            log.info("validation at step %d: %s", step, ", ".join(shown))
            # A stop adds an evaluation, but no candidate: the best is that of a run that never stopped.
            if step == self._steps["total"] or self._due("eval_every", step, 0):
                self._keep_best(state, step)
        if self._due("checkpoint_every", step, last):
            self._store.save(step, state.params, state.without_params(), self._meta(step))

    def _keep_best(self, state: TrainState, step: int) -> None:
        name = self._experiment.train.best_metric
        if name not in self._validation:
            raise UserError(
                f"config.train.best_metric={name!r} is not measured; there are {', '.join(self._validation)}"
            )
        value = self._validation[name] * (1 if name.endswith("loss") else -1)
        if math.isfinite(value) and (self._best_value is None or value < self._best_value):
            self._best_value = value
            self._best.save(step, state.params, state.for_evaluation(), self._meta(step))

    def _meta(self, step: int) -> dict[str, Any]:
        seen = self._seen + (step - (self._from or 0)) * self._experiment.data.batch_size
        ledger = self._ledger.as_dict(sum_over_processes(self._ledger.counted))
        return {
            "step": step,
            "examples_seen": seen,
            "licence": str(licence.of(self._dataset.manifest)),
            "ledger": ledger,
            "best_value": self._best_value,
            "validation": self._validation,
        }

    def _restore_or_start(self) -> tuple[TrainState, int]:
        step = self._from
        if step is None:
            return self._start(), 0
        abstract = self._factory.abstract()
        params, rest, meta = self._store.restore(step, abstract.params, abstract.without_params())
        self._best_value, self._validation = meta["best_value"], meta["validation"]
        log.info("going on from step %d", step)
        return TrainState(params=params, **rest), step

    def _start(self) -> TrainState:
        log.info(describe(self._factory.shardings[1], self._mesh))
        state = self._factory.fresh(self._experiment.seed)
        untrained = CheckpointStore(self._workdir / FOLDERS["untrained"], keep=1)
        untrained.save(0, state.params, state.for_evaluation(), {"step": 0})
        untrained.close()
        probe_tokenizer(self._dataset)
        if self._experiment.pretrained:
            state = self._with_published_weights(state)
        warm = self._experiment.warm_start
        if warm.dir:
            source = load_run(warm.dir, "last")
            there = source.method.towers.merged(source.params), source.state
            params, method = take_weights((state.params, state.method), there, warm.include)
            state = replace(state, params=params, method=method)
        return state

    def _with_published_weights(self, state: TrainState) -> TrainState:
        folders = self._experiment.pretrained
        *there, include = published_weights(folders, _specs(self._dataset))
        log.info("pretrained: %s", ", ".join(f"{m} from {folder}" for m, folder in folders.items()))
        params, method = take_weights((state.params, state.method), tuple(there), include, "pretrained")
        centre = jax.jit(
            lambda params, method, batch: self._method.centre(params, method, batch.only_valid(), tuple(folders)),
            out_shardings=self._factory.shardings[0].params,
            donate_argnums=0,
        )
        return replace(state, params=centre(params, method, self._factory.batch), method=method)


def _augmentation(experiment: Experiment) -> Callable[[Batch, jax.Array], Batch] | None:
    configs = experiment.data.device
    return (lambda batch, key: augment(batch, configs, key)) if configs else None


def _place() -> tuple[int, int]:
    return jax.process_index(), jax.process_count()


def _selected(config: OptimizerConfig, method: Method, batch: Batch) -> tuple[frozenset[str], dict[str, float]]:
    """The frozen parameters, and what the learning rates of the others are multiplied by, by path."""
    if not config.selects:
        return frozenset(), {}
    names = parameter_names(jax.eval_shape(method.init, jax.random.key(0), batch)[0])
    frozen = frozen_names(config.freeze, names)
    if frozen:
        log.info("frozen parameters: %s", roots(sorted(frozen)))
    return frozen, rate_factors(config.lr_multipliers, config.layer_decay, names)


def _check_devices(experiment: Experiment, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError for what would fail only after the first step or evaluation."""
    size, devices = experiment.data.batch_size, math.prod(mesh.shape[a] for a in BATCH_AXES)
    if size % devices:
        near = max(size // devices, 1) * devices
        raise UserError(
            f"config.data.batch_size={size} does not divide by the {devices} devices of the batch; use {near}"
        )
    metric = experiment.train.best_metric
    if jax.process_count() > 1 and not metric.endswith("loss"):
        raise UserError(
            f"config.train.best_metric={metric!r} is measured by single processes only; with several pass "
            "--config.train.best_metric=validation/loss"
        )
