"""Where every parameter lies: logical names by one rule table, the rest by "largest divisible dimension"."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Logical name -> mesh axis. Activations use "batch"; parameters the others.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", ("replica", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
    ("patch", None),
    ("tokens", None),
    ("uneven heads", None),  # as many as do not divide by the axis of "heads": they stay together
)
# For activations: their batch axis already uses fsdp.
ACTIVATION_RULES = tuple((name, None if name == "embed" else axis) for name, axis in RULES)
_SMALL = 2**14  # elements below which a parameter is not worth splitting


@dataclass(frozen=True)
class Placement:
    """Where one parameter lies, and what could not be done. by_accident: a large one that lies whole on every device
    for want of a dimension that divides."""

    path: str
    shape: tuple[int, ...]
    bytes: int
    spec: PartitionSpec
    bytes_per_device: int
    note: str

    @property
    def by_accident(self) -> bool:
        """Whether it lies whole on every device though the rules would split it."""
        return bool(self.note) and self.bytes_per_device == self.bytes and math.prod(self.shape) >= _SMALL


def place(shape: tuple[int, ...], names: tuple[str | None, ...], mesh: Mesh) -> tuple[PartitionSpec, str]:
    """The PartitionSpec of a parameter, and a note on what could not be done.

    Each named dimension goes to its rule's axis if it divides by it. A large parameter that this leaves whole is
    split over fsdp along its largest divisible dimension.
    """
    table: Mapping[str, str | tuple[str, ...] | None] = dict(RULES)
    axes: list[str | None] = [None] * len(shape)
    note = ""
    for i, name in enumerate(names):
        axis = table.get(name) if name else None
        if name == "uneven heads":
            note = f"the heads do not divide by tensor={mesh.shape['tensor']}"
        if not isinstance(axis, str) or mesh.shape[axis] == 1 or axis in axes:
            continue
        if shape[i] % mesh.shape[axis]:
            note = f"{name}={shape[i]} does not divide by {axis}={mesh.shape[axis]}"
            continue
        axes[i] = axis
    fsdp = mesh.shape["fsdp"]
    if fsdp > 1 and "fsdp" not in axes and math.prod(shape) >= _SMALL:
        free = [i for i in range(len(shape)) if axes[i] is None and shape[i] % fsdp == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
        else:
            note = note or f"no dimension divides by fsdp={fsdp}"
    return PartitionSpec(*axes), note


def parameter_shardings(abstract, logical, mesh: Mesh):
    """A tree of NamedSharding and the table of placements.

    abstract: a tree of ShapeDtypeStruct. logical: the same tree with a PartitionSpec of logical names in each leaf.
    """
    table: list[Placement] = []

    def one(path, leaf, names):
        spec, note = place(leaf.shape, tuple(names), mesh)
        size = leaf.size * leaf.dtype.itemsize
        parts = math.prod(mesh.shape[a] for a in spec if a)
        table.append(
            Placement(
                jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, size, spec, size // parts, note
            )
        )
        return NamedSharding(mesh, spec)

    shardings = jax.tree_util.tree_map_with_path(one, abstract, logical)
    return shardings, table
