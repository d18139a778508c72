"""Where parameters and activations lie on the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from medjax.models.partitioning import axis_rules, constrain, dividing
from medjax.sharding import ACTIVATION_RULES, MeshConfig, describe, held, make_mesh, parameter_shardings
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
        ((128, 96), ("embed", "uneven heads"), ("fsdp", None), "the heads do not divide by tensor=2"),
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
    assert "and 1 smaller ones" in text
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


def test_table_of_all_parameters_shows_other_sections_too(mesh):
    abstract = {"big": jax.ShapeDtypeStruct((128, 256), jnp.float32), "b": jax.ShapeDtypeStruct((256,), jnp.float32)}
    shardings, table = parameter_shardings(abstract, {"big": PartitionSpec("embed", "mlp"), "b": PartitionSpec()}, mesh)
    moments = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=s), abstract, shardings)
    part = held((moments, moments))
    assert (part.bytes, part.per_device, part.replicated) == (4 * (2**15 + 256), 4 * (2**12 + 256), 4 * 256)
    lines = describe(table, mesh, {"optimizer": part}, limit=None).splitlines()
    assert [line.split()[0] for line in lines] == ["mesh", "2", "optimizer,", "big", "b"]
    assert lines[2].endswith("0.1 MiB, 0.0 MiB per device, 0.8% of the bytes replicated")


@pytest.mark.parametrize(
    ("shape", "names", "accident"),
    [
        ((129, 257), (), True),
        ((129, 257), ("embed", "mlp"), True),
        ((128, 257), ("embed", "mlp"), False),  # split, though not as named
        ((127,), ("embed",), False),  # small
        ((), (), False),
    ],
)
def test_accident_is_what_is_large_and_lies_whole_everywhere(mesh, shape, names, accident):
    _, (row,) = parameter_shardings(jax.ShapeDtypeStruct(shape, jnp.float32), PartitionSpec(*names), mesh)
    assert row.by_accident == accident


def test_heads_that_do_not_divide_keep_together(mesh):
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        assert dividing("heads", 6, "uneven heads") == "heads"
        assert dividing("heads", 3, "uneven heads") == "uneven heads"
    assert dividing("heads", 3, "uneven heads") == "heads"  # nothing to divide by
