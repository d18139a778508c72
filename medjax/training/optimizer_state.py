"""Where the state of an optimizer lies on the mesh: beside the parameters that it is about."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from medjax.training.selection import path_name

# Of `optax.scale_by_factored_rms`: which of the two largest axes each of its sums is over.
_SUMMED = {"v_row": -1, "v_col": -2}


def optimizer_shardings(state: Any, params: Any, shardings: Any, everywhere: NamedSharding) -> Any:
    """A tree of NamedSharding for an optimizer's state.

    A leaf whose path ends in that of a parameter lies as the parameter where it has its shape, and by the remaining
    axes where it is a factor of Adafactor's; all else, such as counters, is `everywhere`. Whatever wraps an optimizer,
    only paths and shapes count.

    state, params: trees of ShapeDtypeStruct. shardings: of `params`.
    """
    shapes = {path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(params)}
    specs = {path_name(path): s for path, s in jax.tree_util.tree_leaves_with_path(shardings)}

    def one(path, leaf):
        parts = path_name(path).split("/")
        name = _parameter(parts, shapes)
        if name is None:
            return everywhere
        if leaf.shape == shapes[name]:
            return specs[name]
        return _factor(parts, leaf.shape, shapes[name], specs[name]) or everywhere

    return jax.tree_util.tree_map_with_path(one, state)


def _parameter(parts: list[str], shapes: Mapping[str, Any]) -> str | None:
    """The longest end of a path that is the path of a parameter."""
    ends = ("/".join(parts[i:]) for i in range(len(parts)))
    return next((end for end in ends if end in shapes), None)


def _factor(
    parts: list[str], shape: tuple[int, ...], whole: tuple[int, ...], sharding: NamedSharding
) -> NamedSharding | None:
    """The sharding of a sum over one axis of a parameter; None where it is not one."""
    which = next((k for k in _SUMMED if k in parts), None)
    if which is None or len(shape) != len(whole) - 1:
        return None
    axis = int(np.argsort(whole)[_SUMMED[which]])
    if shape != (*whole[:axis], *whole[axis + 1 :]):
        return None
    spec = [*sharding.spec, *(None,) * (len(whole) - len(sharding.spec))]
    return NamedSharding(sharding.mesh, PartitionSpec(*spec[:axis], *spec[axis + 1 :]))
