"""The mesh: sizes of its axes, and batches laid over it."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from medjax.errors import UserError
from medjax.sharding import (
    BATCH_AXES,
    MeshConfig,
    batch_sharding,
    current_batch_axes,
    data_share,
    make_mesh,
    replicated,
    to_global,
)
from medjax.sharding.mesh import slice_numbers


@pytest.mark.parametrize(
    ("config", "devices", "shape"),
    [
        ({}, 1, (1, 1, 1)),
        ({}, 8, (1, 8, 1)),
        ({"replica": 4}, 8, (4, 2, 1)),
        ({"fsdp": 2}, 8, (4, 2, 1)),
        ({"tensor": 2}, 8, (1, 4, 2)),
        ({"replica": 2, "fsdp": 2, "tensor": 2}, 8, (2, 2, 2)),
        ({"fsdp": 1}, 8, (8, 1, 1)),
        ({}, 64, (1, 64, 1)),
        ({}, 256, (4, 64, 1)),
        ({}, 96, (3, 32, 1)),
        ({"tensor": 4}, 1024, (4, 64, 4)),
    ],
)
def test_open_axes_take_the_devices_that_are_left(config, devices, shape):
    assert MeshConfig(**config).shape(devices) == shape


@pytest.mark.parametrize(
    ("config", "devices"),
    [
        ({"replica": 3}, 8),
        ({"fsdp": 16}, 8),
        ({"tensor": 3}, 8),
        ({"replica": 2, "fsdp": 2}, 8),
        ({"tensor": 16}, 8),
        ({"replica": 16}, 8),
    ],
)
def test_sizes_that_do_not_fit_are_named(config, devices):
    with pytest.raises(UserError, match="there are 8; set the axes to 0") as error:
        MeshConfig(**config).shape(devices)
    assert str(next(iter(config.values()))) in str(error.value)


def test_mesh_has_automatic_axes_over_all_devices():
    mesh = make_mesh(MeshConfig(replica=2, tensor=2))
    assert dict(mesh.shape) == {"replica": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert set(mesh.devices.flat) == set(jax.devices())


def test_batches_keep_their_rows_in_order_and_each_device_holds_its_part():
    mesh = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))
    batch = {"x": np.arange(24.0).reshape(8, 3), "y": np.arange(8) > 3}
    placed = to_global(batch, mesh)
    for name, value in placed.items():
        np.testing.assert_array_equal(value, batch[name])
        assert value.dtype == np.asarray(jax.numpy.asarray(batch[name])).dtype
        assert value.sharding.spec == PartitionSpec(BATCH_AXES)
        for shard in value.addressable_shards:
            replica, fsdp, _ = np.argwhere(mesh.devices == shard.device)[0]
            start = 2 * (2 * replica + fsdp)
            np.testing.assert_array_equal(shard.data, batch[name][start : start + 2])


def test_replicated_arrays_lie_whole_on_every_device():
    mesh = make_mesh(MeshConfig())
    placed = jax.device_put(np.arange(5), replicated(mesh))
    assert all(shard.data.shape == (5,) for shard in placed.addressable_shards)
    assert batch_sharding(mesh).shard_shape((16, 3)) == (2, 3)


def test_batch_axes_are_those_of_the_mesh_that_is_set():
    assert current_batch_axes() is None
    with jax.set_mesh(make_mesh(MeshConfig())):
        assert current_batch_axes() == BATCH_AXES
    with jax.set_mesh(jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))):
        assert current_batch_axes() == ("fsdp",)
    assert current_batch_axes() is None


@dataclass(frozen=True)
class Elsewhere:
    """What a mesh asks of a device that is not here."""

    id: int
    process_index: int = 0
    slice_index: int = 0
    platform: str = "gpu"
    device_kind: str = "GPU"


@pytest.mark.parametrize(
    ("config", "slices", "shape"),
    [
        ({}, 2, (2, 4, 1)),  # a slice holds a whole copy
        ({"fsdp": 8}, 2, (1, 8, 1)),  # unless the weights are too large for it
        ({"fsdp": 2}, 2, (4, 2, 1)),
        ({"tensor": 2}, 4, (4, 1, 2)),
        ({"tensor": 2, "fsdp": 2}, 4, (2, 2, 2)),
    ],
)
def test_slow_network_lies_under_the_first_axes(config, slices, shape):
    devices = [Elsewhere(i, i // 2, i * slices // 8) for i in range(8)]
    config = MeshConfig(**config)
    mesh = make_mesh(config, devices[::-1])
    assert mesh.devices.shape == shape
    assert {d.id for d in mesh.devices.flat} == set(range(8))
    number = np.vectorize(lambda d: d.slice_index)(mesh.devices)
    assert (number == number[..., :1]).all()  # tensor never leaves a slice
    crossings = (np.diff(number.reshape(-1)) != 0).sum()
    assert crossings == slices - 1  # each slice is one run of the first axes
    assert slice_numbers(config, mesh).tolist() == number.reshape(-1).tolist()


def test_slices_of_devices_that_say_nothing_of_them_are_runs_of_neighbours():
    mesh = make_mesh(MeshConfig(slices=2))
    assert mesh.devices.shape == (2, 4, 1)
    assert [d.id for d in mesh.devices.flat] == [d.id for d in jax.devices()]
    assert slice_numbers(MeshConfig(slices=2), mesh).tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"slices": 3}, "slices=3 does not divide the 8 devices"),
        ({"slices": 4, "tensor": 4}, "4 slices cannot share replica=2 and fsdp=1"),
    ],
)
def test_slices_that_do_not_fit_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        make_mesh(MeshConfig(**config))


def test_slices_are_not_denied():
    with pytest.raises(UserError, match="slices=4 and the devices lie in 2 slices"):
        make_mesh(MeshConfig(slices=4), [Elsewhere(i, slice_index=i // 4) for i in range(8)])


@pytest.mark.parametrize(
    ("tensor", "share"),
    [(1, (0, 4)), (2, (0, 4)), (4, (0, 2)), (8, (0, 1))],  # two devices a process
)
def test_processes_that_tensor_lies_across_read_the_same_rows(tensor, share):
    mesh = make_mesh(MeshConfig(replica=1, tensor=tensor), [Elsewhere(i, i // 2) for i in range(8)])
    assert data_share(mesh) == share


def test_rows_that_processes_share_in_part_are_refused():
    mesh = make_mesh(MeshConfig(replica=1, tensor=2), [Elsewhere(i, i // 3) for i in range(6)])
    with pytest.raises(UserError, match="tensor=2 cuts through the devices of processes"):
        data_share(mesh)
