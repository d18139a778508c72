"""What every device holds, in bytes, and the table of it that is printed when a run starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from medjax.sharding.rules import Placement


@dataclass(frozen=True)
class Held:
    """bytes: of all leaves of a tree, each counted once. per_device: of what one device holds of them. replicated: of
    the leaves that lie whole on every device."""

    bytes: int
    per_device: int
    replicated: int


def held(tree: Any) -> Held:
    """What devices hold of a tree of arrays, or of ShapeDtypeStructs, that know their sharding."""
    whole, here, copied = 0, 0, 0
    for x in jax.tree.leaves(tree):
        size = x.size * x.dtype.itemsize
        part = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        whole, here, copied = whole + size, here + part, copied + (size if part == size else 0)
    return Held(whole, here, copied)


def describe(
    table: list[Placement], mesh: Mesh, sections: Mapping[str, Held] | None = None, limit: int | None = 12
) -> str:
    """The largest parameters and where they lie, and how many bytes each device holds, of these and of other sections
    of the state. limit: rows; None for all."""
    whole = sum(p.bytes for p in table)
    here = sum(p.bytes_per_device for p in table)
    copied = sum(p.bytes for p in table if p.bytes_per_device == p.bytes)
    sections = {f"{len(table)} parameters": Held(whole, here, copied), **(sections or {})}
    lines = [f"mesh {dict(mesh.shape)}"]
    for name, part in sections.items():
        line = f"{name}, {part.bytes / 2**20:.1f} MiB, {part.per_device / 2**20:.1f} MiB per device"
        if mesh.size > 1:
            line += f", {part.replicated / max(part.bytes, 1):.1%} of the bytes replicated"
        lines.append(line)
    if mesh.size > 1:
        rows = sorted(table, key=lambda p: -p.bytes)
        for p in rows[:limit]:
            each = f"{p.bytes_per_device / 2**20:.2f} of {p.bytes / 2**20:.2f} MiB"
            lines.append(f"  {p.path} {list(p.shape)} {p.spec} {each} {p.note}".rstrip())
        if limit is not None and len(rows) > limit:
            lines.append(f"  and {len(rows) - limit} smaller ones")
    return "\n".join(lines)
