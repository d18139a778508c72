"""The state that a run starts from: fresh, with published weights, or with those of another run."""

import logging
from pathlib import Path
from typing import Any

import jax

from medjax.checkpoints import CheckpointStore
from medjax.data import Dataset
from medjax.methods.encoder import FOLDERS, load_run
from medjax.sharding import describe, held, is_main
from medjax.training.experiment import Experiment, WarmStart
from medjax.training.pretrained import probe_tokenizer, published_weights
from medjax.training.state import StateFactory, TrainState
from medjax.training.warm_start import patch_grids, take_weights

log = logging.getLogger("medjax")


def start(factory: StateFactory, experiment: Experiment, dataset: Dataset, workdir: Path) -> TrainState:
    """The state before the first step; the untrained one is kept in the workdir, as a control.

    Raises:
      UserError: weights to start from do not fit.
    """
    _describe(factory, workdir)
    state = factory.fresh(experiment.seed)
    untrained = CheckpointStore(workdir / FOLDERS["untrained"], keep=1)
    untrained.save(0, state.params, state.for_evaluation(), {"step": 0})
    untrained.close()
    probe_tokenizer(dataset)
    if experiment.pretrained:
        state = _with_published_weights(factory, state, experiment, specs(dataset))
    if experiment.warm_start.dir:
        state = _with_weights_of_run(factory, state, experiment.warm_start, specs(dataset), workdir)
    return state


def _with_weights_of_run(
    factory: StateFactory, state: TrainState, warm: WarmStart, specs: dict[str, Any], workdir: Path
) -> TrainState:
    source = load_run(warm.dir, "last", "ema" if warm.ema else "raw")
    grids = None
    if warm.resize_positions:
        there = {m: t.spec() for m, t in source.transforms.items()}
        grids = patch_grids(factory.method, specs), patch_grids(source.method, there)
    log.info("config.warm_start: step %s of %s%s", source.step, warm.dir, ", moving average" if warm.ema else "")
    merged = source.method.towers.merged(source.params), source.state
    report = workdir / "warm_start.json"
    taken = take_weights((state.params, state.method), merged, warm.include, report=report, grids=grids)
    return factory.starting_from(state, *taken)


def _describe(factory: StateFactory, workdir: Path) -> None:
    """Logs where the largest parameters lie; all of them stand in the workdir."""
    rest = factory.abstract().without_params()
    sections = {name: held(part) for name, part in rest.items() if name in ("optimizer", "ema", "method")}
    sections = {name: part for name, part in sections.items() if part.bytes}
    log.info(describe(factory.shardings[1], factory.mesh, sections))
    if is_main():
        text = describe(factory.shardings[1], factory.mesh, sections, limit=None)
        (workdir / "sharding.txt").write_text(text + "\n")


def specs(dataset: Dataset) -> dict[str, Any]:
    """What the transforms of a data set say of each modality, which methods are made with."""
    return {m: t.spec() for m, t in dataset.transforms.items()}


def _with_published_weights(
    factory: StateFactory, state: TrainState, experiment: Experiment, specs: dict[str, Any]
) -> TrainState:
    folders = experiment.pretrained
    *there, include = published_weights(folders, specs)
    log.info("pretrained: %s", ", ".join(f"{m} from {folder}" for m, folder in folders.items()))
    params, method = take_weights((state.params, state.method), tuple(there), include, "pretrained")
    centre = jax.jit(
        lambda params, method, batch: factory.method.centre(params, method, batch.only_valid(), tuple(folders)),
        out_shardings=factory.shardings[0].params,
        donate_argnums=0,
    )
    return factory.starting_from(state, centre(params, method, factory.batch), method)
