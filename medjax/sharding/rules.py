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
)
# For activations: their batch axis already uses fsdp.
ACTIVATION_RULES = tuple((name, None if name == "embed" else axis) for name, axis in RULES)
_SMALL = 2**14  # elements below which a parameter is not worth splitting


@dataclass(frozen=True)
class Placement:
    """Where one parameter lies, and why."""

    path: str
    shape: tuple[int, ...]
    bytes: int
    spec: PartitionSpec
    bytes_per_device: int
    note: str


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


def describe(table: list[Placement], mesh: Mesh, limit: int = 12) -> str:
    """The largest parameters and where they lie, and how many bytes every device holds in full."""
    whole = sum(p.bytes for p in table)
    held = sum(p.bytes_per_device for p in table)
    copied = sum(p.bytes for p in table if p.bytes_per_device == p.bytes) if mesh.size > 1 else 0
    lines = [
        f"mesh {dict(mesh.shape)}; {len(table)} parameters, {whole / 2**20:.1f} MiB, {held / 2**20:.1f} MiB per device"
    ]
    if mesh.size > 1:
        lines[0] += f", {copied / max(whole, 1):.1%} of the bytes replicated"
        for p in sorted(table, key=lambda p: -p.bytes)[:limit]:
            lines.append(f"  {p.path} {list(p.shape)} {p.spec} {p.note}".rstrip())
    return "\n".join(lines)
