"""Where parameters and activations lie on the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from medjax.models.partitioning import axis_rules, constrain
from medjax.sharding import ACTIVATION_RULES, MeshConfig, describe, make_mesh, parameter_shardings
from medjax.sharding.rules import place


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(replica=1, fsdp=4, tensor=2))


@pytest.mark.parametrize(
    ("shape", "names", "spec", "note"),
    [
        ((128, 256), ("embed", "mlp"), ("fsdp", "tensor"), ""),
        ((256, 128), ("mlp", "embed"), ("tensor", "fsdp"), ""),
        ((128, 128), ("embed", "embed"), ("fsdp", None), ""),  # an axis is used once
        ((16, 8), ("embed", "heads"), ("fsdp", "tensor"), ""),  # named, however small
        ((126, 256), ("embed", "mlp"), (None, "tensor"), "embed=126 does not divide by fsdp=4"),
        ((128, 129), (None, "mlp"), ("fsdp", None), "mlp=129 does not divide by tensor=2"),
        ((128, 256), (), (None, "fsdp"), ""),  # no names: the largest dimension that divides
        ((130, 256, 129), (), (None, "fsdp", None), ""),
        ((128, 257), (None, None), ("fsdp", None), ""),
        ((129, 257), (), (None, None), "no dimension divides by fsdp=4"),
        ((64, 64), (), (None, None), ""),  # small
        ((), (), (), ""),
        ((128, 256), ("unheard", "of"), (None, "fsdp"), ""),
    ],
)
def test_placement_of_a_parameter(mesh, shape, names, spec, note):
    assert place(shape, names, mesh) == (PartitionSpec(*spec), note)


def test_single_device_splits_nothing():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert place((1024, 1024), ("embed", "mlp"), mesh) == (PartitionSpec(None, None), "")


def test_tree_of_shardings_and_its_table_agree(mesh):
    abstract = {
        "a": {"kernel": jax.ShapeDtypeStruct((128, 256), jnp.float32)},
        "b": jax.ShapeDtypeStruct((7,), jnp.bfloat16),
    }
    logical = {"a": {"kernel": PartitionSpec("embed", "mlp")}, "b": PartitionSpec()}
    shardings, table = parameter_shardings(abstract, logical, mesh)
    assert shardings == {
        "a": {"kernel": NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))},
        "b": NamedSharding(mesh, PartitionSpec(None)),
    }
    rows = {p.path: p for p in table}
    assert set(rows) == {"a/kernel", "b"}
    assert (rows["a/kernel"].bytes, rows["a/kernel"].bytes_per_device) == (4 * 128 * 256, 4 * 128 * 256 // 8)
    assert (rows["b"].bytes, rows["b"].bytes_per_device) == (14, 14)
    placed = jax.device_put(np.zeros((128, 256), np.float32), shardings["a"]["kernel"])
    assert {shard.data.nbytes for shard in placed.addressable_shards} == {rows["a/kernel"].bytes_per_device}


def test_description_names_the_largest_parameters_and_what_failed(mesh):
    abstract = {
        "big": jax.ShapeDtypeStruct((126, 256), jnp.float32),
        "odd": jax.ShapeDtypeStruct((129, 257), jnp.float32),
    }
    logical = {"big": PartitionSpec("embed", "mlp"), "odd": PartitionSpec()}
    _, table = parameter_shardings(abstract, logical, mesh)
    text = describe(table, mesh, limit=1)
    share = 4 * 129 * 257 / sum(p.bytes for p in table)
    assert f"{share:.1%} of the bytes replicated" in text
    assert "odd [129, 257]" in text
    assert "no dimension divides by fsdp=4" in text
    assert "big" not in text


def test_constraints_reach_the_compiler_under_the_mesh(mesh):
    """Linen drops them silently under a plain `with mesh:`; so the lowered program is asked."""

    def double(x):
        return constrain(2 * x, "batch", "tokens", "embed")

    def constraints(f):
        return jax.jit(f).lower(jax.ShapeDtypeStruct((8, 4, 16), jnp.float32)).as_text().count("sharding_constraint")

    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        assert constraints(double) > 0
        out = jax.jit(double)(np.ones((8, 4, 16), np.float32))
    assert out.sharding.shard_shape(out.shape) == (2, 4, 16)
    assert constraints(lambda x: constrain(2 * x, "batch", "tokens", "embed")) == 0  # nothing without a mesh
