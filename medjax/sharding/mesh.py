"""The mesh: its axes, and the one place that makes it."""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medjax.errors import UserError

AXES = ("replica", "fsdp", "tensor")
BATCH_AXES = ("replica", "fsdp")
_MAX_FSDP = 64  # widths such as 768 do not divide by much more


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; 0 means what is left. replica: whole copies of the parameters. fsdp: each device holds
    a part of every parameter and of the optimizer's state. tensor: wide layers are split. The batch lies over replica
    and fsdp.
    """

    replica: int = 0
    fsdp: int = 0
    tensor: int = 1

    def shape(self, devices: int) -> tuple[int, int, int]:
        """The sizes of `AXES` on so many devices; with both left open fsdp gets up to 64 and replica the rest.

        Raises:
          UserError: the sizes do not multiply to the number of devices.
        """
        replica, fsdp, tensor = self.replica, self.fsdp, max(self.tensor, 1)
        rest = max(devices // tensor, 1)
        if not fsdp and not replica:
            fsdp = math.gcd(rest, _MAX_FSDP) if rest > _MAX_FSDP else rest
        fsdp = fsdp or max(rest // replica, 1)
        replica = replica or max(rest // fsdp, 1)
        if replica * fsdp * tensor != devices:
            raise UserError(
                f"config.mesh asks for {replica} x {fsdp} x {tensor} (replica x fsdp x tensor) devices and there are "
                f"{devices}; set the axes to 0 to fill them"
            )
        return replica, fsdp, tensor


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """The mesh over all devices (or these); use it with `jax.set_mesh`.

    Axes are Auto: Linen's constraints are silently dropped under a plain `with mesh:` and fail on Explicit axes.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(config.shape(len(devices)), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the global batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def to_global(tree, mesh: Mesh):
    """Global arrays from this process's contiguous rows of every numpy leaf."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def current_batch_axes() -> tuple[str, ...] | None:
    """The axes over which the batch lies under the mesh now set; None without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else tuple(a for a in BATCH_AXES if a in mesh.axis_names)
