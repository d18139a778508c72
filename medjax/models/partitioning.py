"""Linen's logical partitioning, in one place: names on parameters and activations.

`medjax.sharding` turns names into mesh axes. Names used: "batch", "tokens", "embed" (the residual stream), "heads",
"mlp", "vocab", "patch", "uneven heads", and None.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import flax.linen as nn
import jax

Rules = Sequence[tuple[str, str | tuple[str, ...] | None]]


def named(init: Callable, *names: str | None) -> Callable:
    """A parameter initialiser whose result carries logical axis names."""
    return nn.with_logical_partitioning(init, names)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Asks the compiler to lay `x` out by its logical axis names; nothing without a mesh."""
    return nn.with_logical_constraint(x, names)


def dividing(name: str, size: int, otherwise: str | None = None) -> str | None:
    """The logical name if `size` divides by the devices along the mesh axis that the rules give it, else `otherwise`;
    the name where there is no mesh."""
    axis = dict(nn.get_logical_axis_rules()).get(name)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not isinstance(axis, str) or axis not in mesh.shape:
        return name
    return otherwise if size % mesh.shape[axis] else name


def axis_rules(rules: Rules) -> AbstractContextManager:
    """Within this context logical names mean these mesh axes; wrap the tracing of every jitted function in it."""
    return nn.logical_axis_rules(rules)


def unbox(tree):
    """Plain arrays from parameters that carry names."""
    return nn.unbox(tree)


def logical_specs(boxed_tree):
    """The PartitionSpec of logical names of every leaf; `PartitionSpec()` where it has none."""
    return nn.get_partition_spec(boxed_tree)
