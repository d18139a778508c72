"""The real training step, compiled for devices that hold no data."""

from dataclasses import dataclass, replace

import jax
from jax.sharding import Mesh

from medjax.data.batch import Batch
from medjax.methods import Method, make_method
from medjax.sharding import batch_sharding
from medjax.training.experiment import Experiment
from medjax.training.planning.description import Description
from medjax.training.program import Program, check_batch, tracing
from medjax.training.state import TrainState

# Machine code that will not run need not be good; layout, memory and collectives are settled before it.
_FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True)
class Traced:
    """One training step of a recipe on a mesh, before it is compiled. state, batch: shapes, dtypes and shardings."""

    experiment: Experiment
    method: Method
    program: Program
    state: TrainState
    batch: Batch
    mesh: Mesh

    @classmethod
    def create(cls, experiment: Experiment, description: Description, mesh: Mesh) -> "Traced":
        """Of the batch size of the recipe.

        Raises:
          UserError: anything wrong with the recipe, or a batch that the devices cannot share.
        """
        check_batch(experiment, mesh)
        method = make_method(experiment.method, description.specs)
        rows = batch_sharding(mesh)
        batch = description.batch(experiment.data.batch_size).select(method.modalities)
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch)
        with tracing(experiment, mesh):
            program = Program.create(experiment, method, mesh, batch, experiment.steps(description.examples))
            return cls(experiment, method, program, program.factory.abstract(), batch, mesh)

    def compile(self) -> jax.stages.Compiled:
        """For the devices of the mesh."""
        with tracing(self.experiment, self.mesh):
            lowered = self.program.step.lower(self.state, self.batch)
            return lowered.compile(_FAST if self.mesh.devices.flat[0].platform == "cpu" else None)


def with_batch(experiment: Experiment, size: int) -> Experiment:
    """The recipe with another global batch."""
    return replace(experiment, data=replace(experiment.data, batch_size=size))
