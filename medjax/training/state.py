"""What training carries from step to step, born where it will live on the mesh."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from medjax.data.batch import Batch
from medjax.methods import Method
from medjax.sharding import parameter_shardings, replicated
from medjax.sharding.rules import Placement
from medjax.training.selection import trained


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """step: int32[], updates tried. bad_steps: int32[], the last so many in a row were skipped; skipped: in all."""

    step: jax.Array
    params: Any
    method: Any
    optimizer: Any
    bad_steps: jax.Array
    skipped: jax.Array

    def without_params(self) -> dict[str, Any]:
        """All the rest by name, as checkpoints keep it."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "params"}

    def for_evaluation(self) -> dict[str, Any]:
        """What of the rest evaluation needs, by name."""
        return {"step": self.step, "method": self.method}


@dataclass(frozen=True)
class StateFactory:
    """Makes a fresh TrainState, and knows the shapes and shardings of one. `batch` gives the shapes of the data.

    frozen: paths of parameters that are not trained, of which the optimizer keeps nothing.
    """

    method: Method
    tx: optax.GradientTransformation
    mesh: Mesh
    batch: Batch
    frozen: frozenset[str] = frozenset()

    def fresh(self, seed: int) -> TrainState:
        """Every leaf is made on the devices that hold it."""
        make = jax.jit(self._make, out_shardings=self.shardings[0])
        return make(jax.random.key(seed), self.batch)

    def _make(self, key: jax.Array, batch: Batch) -> TrainState:
        params, state = self.method.init(key, batch.only_valid())
        zero = jnp.int32(0)
        return TrainState(zero, params, state, self.tx.init(trained(params, self.frozen)), zero, zero)

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings, for restoring."""
        shapes = jax.eval_shape(self._make, jax.random.key(0), self.batch)
        shardings, _ = self.shardings
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)

    @cached_property
    def shardings(self) -> tuple[TrainState, list[Placement]]:
        """The sharding of every leaf, and the table of where the parameters lie."""
        shapes = jax.eval_shape(self._make, jax.random.key(0), self.batch)
        params, table = parameter_shardings(shapes.params, self.method.logical_axes(self.batch), self.mesh)
        everywhere = replicated(self.mesh)
        # Moments lie as their parameters do; counters are everywhere.
        optimizer = optax.tree_map_params(
            self.tx,
            lambda _, s: s,
            shapes.optimizer,
            trained(params, self.frozen),
            transform_non_params=lambda _: everywhere,
        )
        method = jax.tree.map(lambda _: everywhere, shapes.method)
        return TrainState(everywhere, params, method, optimizer, everywhere, everywhere), table
