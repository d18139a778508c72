"""The mesh: its axes, and the one place that makes it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import mesh_utils
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

    slices: groups of devices with a fast network of their own and a slow one between them: TPU slices, nodes of GPUs;
    0 takes what the devices say. The first axes lie across them, so that by default a slice holds one or several whole
    copies and only their gradients cross; tensor stays within a slice.
    """

    replica: int = 0
    fsdp: int = 0
    tensor: int = 1
    slices: int = 0

    def shape(self, devices: int, slices: int = 1) -> tuple[int, int, int]:
        """The sizes of `AXES` on so many devices; with both left open fsdp gets up to 64 within a slice and replica the
        rest.

        Raises:
          UserError: the sizes do not multiply to the number of devices.
        """
        replica, fsdp, tensor = self.replica, self.fsdp, max(self.tensor, 1)
        rest = max(devices // tensor, 1)
        if not fsdp and not replica:
            within = max(rest // slices, 1)
            fsdp = math.gcd(within, _MAX_FSDP) if within > _MAX_FSDP else within
        fsdp = fsdp or max(rest // replica, 1)
        replica = replica or max(rest // fsdp, 1)
        if replica * fsdp * tensor != devices:
            raise UserError(
                f"config.mesh asks for {replica} x {fsdp} x {tensor} (replica x fsdp x tensor) devices and there are "
                f"{devices}; set the axes to 0 to fill them"
            )
        return replica, fsdp, tensor


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices (or these); use it with `jax.set_mesh`.

    Axes are Auto: Linen's constraints are silently dropped under a plain `with mesh:` and fail on Explicit axes.

    Raises:
      UserError: the axes do not fill the devices, or the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = _slices(devices, config.slices)
    shape = config.shape(len(devices), len(slices))
    across = _across(shape, len(slices))
    within = tuple(n // k for n, k in zip(shape, across, strict=True))
    meshes = [_mesh(within, group) for group in slices]
    if len(meshes) == 1:
        return meshes[0]
    blocks = np.empty(len(meshes), object)
    blocks[:] = [mesh.devices for mesh in meshes]
    return Mesh(np.block(blocks.reshape(across).tolist()), AXES, axis_types=(AxisType.Auto,) * 3)


def slice_numbers(config: MeshConfig, mesh: Mesh) -> np.ndarray:
    """int[mesh.size]: the slice of each device, in the order of the mesh."""
    slices = _slices(sorted(mesh.devices.flat, key=lambda d: d.id), config.slices)
    number = {d.id: i for i, group in enumerate(slices) for d in group}
    return np.array([number[d.id] for d in mesh.devices.flat])


def _mesh(shape: tuple[int, ...], devices: list[jax.Device]) -> Mesh:
    try:
        placed = mesh_utils.create_device_mesh(shape, devices)
    except NotImplementedError:  # no axis of a TPU's torus has this length: an axis of the mesh takes a part of one
        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * 3)


def _slices(devices: list[jax.Device], count: int) -> list[list[jax.Device]]:
    """The devices of each slice: as they say, or where they say nothing of it, equal runs of neighbouring processes."""
    found: dict[int, list[jax.Device]] = {}
    for d in devices:
        found.setdefault(getattr(d, "slice_index", None) or 0, []).append(d)
    if len(found) > 1 and count not in (0, 1, len(found)):
        raise UserError(f"config.mesh.slices={count} and the devices lie in {len(found)} slices; set it to 0")
    if len(found) > 1 and count != 1:
        return [found[i] for i in sorted(found)]
    if len(devices) % max(count, 1):
        raise UserError(f"config.mesh.slices={count} does not divide the {len(devices)} devices")
    if count <= 1:
        return [devices]
    near = sorted(devices, key=lambda d: (d.process_index, d.id))
    size = len(devices) // count
    return [near[i : i + size] for i in range(0, len(devices), size)]


def _across(shape: tuple[int, int, int], slices: int) -> tuple[int, int, int]:
    """How many parts the slow network cuts each axis into: the first that has any room takes what it can."""
    replica = math.gcd(shape[0], slices)
    fsdp = math.gcd(shape[1], slices // replica)
    if replica * fsdp != slices:
        raise UserError(
            f"{slices} slices cannot share replica={shape[0]} and fsdp={shape[1]} of config.mesh evenly, and tensor "
            "stays within a slice; make their product a multiple of the slices"
        )
    return replica, fsdp, 1


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


def data_share(mesh: Mesh) -> tuple[int, int]:
    """Which share of the rows of every global batch this process reads, and how many shares there are.

    As many as there are processes, unless tensor lies across some, which then read the same rows.

    Raises:
      UserError: processes whose rows overlap in part, or that have different numbers of them.
    """
    rows: dict[int, set[tuple[int, int]]] = {}
    for (replica, fsdp, _), device in np.ndenumerate(mesh.devices):
        rows.setdefault(device.process_index, set()).add((replica, fsdp))
    shares = sorted({tuple(sorted(r)) for r in rows.values()})
    if sum(map(len, shares)) != len(set().union(*shares)) or len({len(s) for s in shares}) > 1:
        raise UserError(
            f"config.mesh: tensor={mesh.shape['tensor']} cuts through the devices of processes, so that they share "
            "some rows of the batch and not others; make it divide, or be a multiple of, the devices of a process"
        )
    return shares.index(tuple(sorted(rows[jax.process_index()]))), len(shares)


def current_batch_axes() -> tuple[str, ...] | None:
    """The axes over which the batch lies under the mesh now set; None without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else tuple(a for a in BATCH_AXES if a in mesh.axis_names)
