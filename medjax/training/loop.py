"""A whole run: its stages one after the other, each from its newest sound checkpoint or from the start."""

import contextlib
from pathlib import Path
from typing import Any

from medjax.data import Dataset
from medjax.methods import make_method
from medjax.sharding import is_main, make_mesh
from medjax.training.experiment import Experiment, stages
from medjax.training.goodput import FILE, Goodput
from medjax.training.guards import Rollback
from medjax.training.metrics import start_logging
from medjax.training.pretrained import settle
from medjax.training.program import tracing
from medjax.training.rundir import describe_run
from medjax.training.starting import specs
from medjax.training.survival import Survival, surviving
from medjax.training.trainer import Trainer


def run(config: Any, workdir: Path, stop_at_step: int | None = None) -> None:
    """Trains all stages of a recipe; the last in `workdir`, those before it in `workdir/stages/<name>`.

    stop_at_step: leave the last stage there, with a checkpoint, as if the machine had been taken away.

    Raises:
      UserError: anything wrong with the configuration, the data or the state of the workdir.
      Preempted: the run was asked to leave, and has saved.
    """
    plan = stages(config)
    folders = [workdir / "stages" / name for name, _ in plan[:-1]] + [workdir]
    plan = [settle(experiment, folder) for (_, experiment), folder in zip(plan, folders, strict=True)]
    for experiment in plan:  # fails before a device is touched
        make_method(experiment.method, specs(Dataset.open(experiment.data)))
    previous: Path | None = None
    with surviving(workdir, plan[-1].train) as survival:
        for experiment, folder in zip(plan[:-1], folders[:-1], strict=True):
            train(_following(experiment, previous), folder, survival)
            previous = folder
        train(_following(plan[-1], previous), workdir, survival, stop_at_step)


def _following(experiment: Experiment, previous: Path | None) -> Experiment:
    return experiment if previous is None or experiment.warm_start.dir else experiment.starting_from(previous)


def train(experiment: Experiment, workdir: Path, survival: Survival, stop_at_step: int | None = None) -> None:
    """Trains one stage, from its newest sound checkpoint or from the start, to its end."""
    goodput = Goodput(workdir / FILE if is_main() else None)
    dataset = Dataset.open(experiment.data)
    if is_main():
        describe_run(experiment, workdir, dataset)
    start_logging(workdir, is_main())
    mesh = make_mesh(experiment.mesh)
    with contextlib.closing(goodput), tracing(experiment, mesh):
        rollback: Rollback | None = None
        while True:
            try:
                Trainer(experiment, dataset, workdir, mesh, goodput, survival, rollback).run(stop_at_step)
                return
            except Rollback as found:  # a new one, since this one's traceback holds the old state
                rollback = Rollback(found.seen, found.count)
