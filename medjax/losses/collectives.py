"""The few collective operations the losses need, with the local case (`axis_name=None`) as the identity."""

import jax
import jax.numpy as jnp

AxisName = str | tuple[str, ...] | None


def all_gather(tree, axis_name: AxisName):
    """Concatenates every leaf `[b, ...]` over the axis into `[B, ...]`; its transpose is a reduce-scatter."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), tree)


def psum(tree, axis_name: AxisName):
    """Sums every leaf over the axis."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def axis_size(axis_name: AxisName) -> int:
    """The number of devices along the axis; 1 locally."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def global_rows(b: int, axis_name: AxisName) -> jax.Array:
    """int32[b]: the global batch rows held by this device."""
    start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * b
    return start + jnp.arange(b, dtype=jnp.int32)


def ring_shift(tree, axis_name: AxisName):
    """Sends every leaf to the next device round the ring."""
    n = axis_size(axis_name)
    return jax.lax.ppermute(tree, axis_name, [(i, (i + 1) % n) for i in range(n)])


def varying_axes(tree) -> frozenset[str]:
    """The manual mesh axes over which any leaf differs from device to device."""
    axes: frozenset[str] = frozenset()
    for leaf in jax.tree.leaves(tree):
        kind = getattr(jax.typeof(leaf), "manual_axis_type", None)
        axes |= frozenset(getattr(kind, "varying", ()) or getattr(jax.typeof(leaf), "vma", ()))
    return axes


def make_varying(tree, axes: frozenset[str]):
    """Marks every leaf as differing over `axes`; the transpose is a sum over those it was replicated on."""

    def cast(x):
        new = tuple(sorted(axes - varying_axes(x)))
        return jax.lax.pcast(x, new, to="varying") if new else x

    return jax.tree.map(cast, tree)
