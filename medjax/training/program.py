"""What one stage of a recipe computes on a mesh: the same whether it is trained or only planned."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from medjax.data.batch import Batch
from medjax.data.device_augment import augment
from medjax.errors import UserError
from medjax.methods import Method
from medjax.models.partitioning import axis_rules
from medjax.sharding import ACTIVATION_RULES, BATCH_AXES
from medjax.training.accumulate import micro_batches
from medjax.training.experiment import Experiment
from medjax.training.optimizer import Optimizer
from medjax.training.selection import parameter_names, roots
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step

log = logging.getLogger("medjax")


@contextlib.contextmanager
def tracing(experiment: Experiment, mesh: Mesh) -> Iterator[None]:
    """All that a training is traced under: the mesh, the meaning of names on it, and the precision of products."""
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES), experiment.precision.products():
        yield


@dataclass(frozen=True)
class Program:
    """factory: of the state. step: `(state, batch) -> (state, metrics)`, jitted."""

    factory: StateFactory
    step: Callable

    @classmethod
    def create(
        cls, experiment: Experiment, method: Method, mesh: Mesh, batch: Batch, steps: Mapping[str, int]
    ) -> "Program":
        """For a mesh that is set. batch: global, of arrays or of their shapes. steps: of `Experiment.steps`."""
        optimizer = _optimizer(experiment, method, batch, steps)
        train = experiment.train
        options = (_augmentation(experiment), train.micro_batch, train.ema_decay)
        rates, frozen = optimizer.rates, optimizer.frozen
        step = make_train_step(method, optimizer.tx, rates.base, experiment.seed, frozen, *options, rates.special)
        averages = train.ema_decay > 0
        return cls(StateFactory(method, optimizer.tx, mesh, batch, frozen, averages, experiment.precision), step)


def check_batch(experiment: Experiment, mesh: Mesh) -> None:
    """Raises UserError where the devices cannot share the batch, or cut their part into its micro-batches."""
    size, devices = experiment.data.batch_size, math.prod(mesh.shape[a] for a in BATCH_AXES)
    if size % devices:
        near = max(size // devices, 1) * devices
        raise UserError(
            f"config.data.batch_size={size} does not divide by the {devices} devices of the batch; use {near}"
        )
    micro_batches(size, devices, experiment.train.micro_batch)


def _augmentation(experiment: Experiment) -> Callable[[Batch, jax.Array], Batch] | None:
    configs = experiment.data.device
    return (lambda batch, key: augment(batch, configs, key)) if configs else None


def _optimizer(experiment: Experiment, method: Method, batch: Batch, steps: Mapping[str, int]) -> Optimizer:
    def names() -> tuple[str, ...]:
        return parameter_names(jax.eval_shape(method.init, jax.eval_shape(jax.random.key, 0), batch)[0])

    optimizer = Optimizer.create(experiment.optimizer, steps, names)
    if optimizer.frozen:
        log.info("frozen parameters: %s", roots(sorted(optimizer.frozen)))
    return optimizer
