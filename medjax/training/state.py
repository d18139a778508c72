"""What training carries from step to step, born where it will live on the mesh."""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from medjax.config import merge
from medjax.data.batch import Batch
from medjax.methods import Method
from medjax.sharding import parameter_shardings, replicated
from medjax.sharding.rules import Placement
from medjax.training import ema
from medjax.training.optimizer_state import optimizer_shardings
from medjax.training.precision import Precision
from medjax.training.selection import trained


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """step: int32[], updates tried. bad_steps: int32[], the last so many in a row were skipped; skipped: in all. ema:
    the moving average of the parameters that are trained, float32; empty where none is kept.
    """

    step: jax.Array
    params: Any
    method: Any
    optimizer: Any
    bad_steps: jax.Array
    skipped: jax.Array
    ema: Any = field(default_factory=dict)

    def without_params(self) -> dict[str, Any]:
        """All the rest by name, as checkpoints keep it."""
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("params", "ema")}
        return rest | self._average()

    def for_evaluation(self) -> dict[str, Any]:
        """What of the rest evaluation needs, by name."""
        return {"step": self.step, "method": self.method} | self._average()

    def _average(self) -> dict[str, Any]:
        return {"ema": self.ema} if self.ema else {}

    def weights(self, which: str) -> Any:
        """The parameters, "raw", or with the averages of those that are trained in their place, "ema"."""
        return merge(self.params, self.ema) if which == "ema" else self.params


@dataclass(frozen=True)
class StateFactory:
    """Makes a fresh TrainState, and knows the shapes and shardings of one. `batch` gives the shapes of the data.

    frozen: paths of parameters that are not trained, of which the optimizer keeps nothing. averages: whether a moving
    average of the others is kept. precision: says in which dtypes parameters are kept.
    """

    method: Method
    tx: optax.GradientTransformation
    mesh: Mesh
    batch: Batch
    frozen: frozenset[str] = frozenset()
    averages: bool = False
    precision: Precision = field(default_factory=Precision)

    def fresh(self, seed: int) -> TrainState:
        """Every leaf is made on the devices that hold it."""
        make = jax.jit(self._make, out_shardings=self.shardings[0])
        return make(jax.random.key(seed), self.batch)

    def _make(self, key: jax.Array, batch: Batch) -> TrainState:
        params, state = self.method.init(key, batch.only_valid())
        params = self.precision.kept(params)
        zero, free = jnp.int32(0), trained(params, self.frozen)
        return TrainState(zero, params, state, self.tx.init(free), zero, zero, self._average(free))

    def _average(self, free: Any) -> Any:
        return ema.begin(free) if self.averages else {}

    def starting_from(self, state: TrainState, params: Any, method: Any) -> TrainState:
        """A fresh state with other parameters and method state; an average begins there."""
        begin = jax.jit(self._average, out_shardings=self.shardings[0].ema)
        return replace(state, params=params, method=method, ema=begin(trained(params, self.frozen)))

    @cached_property
    def _shapes(self) -> TrainState:
        # Of a key too: the devices of the mesh may not be there to make one.
        return jax.eval_shape(self._make, jax.eval_shape(jax.random.key, 0), self.batch)

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings, for restoring."""
        shapes = self._shapes
        shardings, _ = self.shardings
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)

    @cached_property
    def shardings(self) -> tuple[TrainState, list[Placement]]:
        """The sharding of every leaf, and the table of where the parameters lie."""
        shapes = self._shapes
        params, table = parameter_shardings(shapes.params, self.method.logical_axes(self.batch), self.mesh)
        everywhere = replicated(self.mesh)
        free = trained(params, self.frozen)
        optimizer = optimizer_shardings(shapes.optimizer, trained(shapes.params, self.frozen), free, everywhere)
        method = jax.tree.map(lambda _: everywhere, shapes.method)
        average = free if self.averages else {}
        return TrainState(everywhere, params, method, optimizer, everywhere, everywhere, average), table
