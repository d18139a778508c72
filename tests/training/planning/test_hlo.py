"""Collectives read from compiled programs: kinds, axes, bytes, and rounds of loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from medjax.sharding import MeshConfig, make_mesh
from medjax.sharding.mesh import AXES
from medjax.training.planning.hlo import Collective, collectives

SHAPE = (2, 2, 2)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(*SHAPE))


def _read(mesh, fn, x, slices=None):
    rows = PartitionSpec(AXES)
    local = jax.shard_map(fn, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    return collectives(jax.jit(local).lower(x).compile().as_text(), AXES, SHAPE, slices)


def test_every_kind_with_its_axes_and_bytes(mesh):
    def body(x):  # float32[4, 16] of each device
        a = jax.lax.all_gather(x, "fsdp", tiled=True)
        b = jax.lax.psum(a * 2, ("replica", "tensor"))
        c = jax.lax.psum_scatter(jnp.sin(b), "tensor", tiled=True)
        d = jax.lax.all_to_all(c, "replica", 0, 1, tiled=True)
        return jax.lax.ppermute(d, "fsdp", [(0, 1), (1, 0)])

    found = _read(mesh, body, jax.ShapeDtypeStruct((32, 16), jnp.float32))
    one = 4 * 16 * 4
    assert dict(found.times) == {
        Collective("all-gather", ("fsdp",), 2, 2 * one, False): 1,
        Collective("all-reduce", ("replica", "tensor"), 4, 2 * one, False): 1,
        Collective("reduce-scatter", ("tensor",), 2, 2 * one, False): 1,
        Collective("all-to-all", ("replica",), 2, one, False): 1,
        Collective("collective-permute", ("fsdp",), 2, one, False): 1,
    }
    # Round a ring: half of what is gathered or scattered between two, 3/4 of what is summed over four, twice.
    assert found.sent == one + 2 * 2 * one * 3 / 4 + one + one / 2 + one
    assert found.sent_beyond == 0


def test_loops_count_as_often_as_they_run_also_inside_each_other(mesh):
    def inner(c, _):
        return jax.lax.psum(jnp.sin(c), "fsdp"), None

    def outer(c, _):
        return jax.lax.scan(inner, jax.lax.pmax(c, "tensor"), None, length=3)[0], None

    found = _read(mesh, lambda x: jax.lax.scan(outer, x, None, length=5)[0], jax.ShapeDtypeStruct((8,), jnp.float32))
    assert {c.axes: n for c, n in found.times.items()} == {("tensor",): 5, ("fsdp",): 15}
    assert found.open_loops == 0


def test_a_loop_that_carries_many_arrays_is_read_as_well(mesh):
    """HLO numbers the sixth of a computation's arguments with a comment, /*index=5*/, in the computation's heading."""

    def body(carry, _):
        first, *rest = carry
        return (*rest, jax.lax.psum(jnp.sin(first), "fsdp")), None

    def loop(x):
        return sum(jax.lax.scan(body, tuple(x * k for k in range(1, 9)), None, length=7)[0])

    found = _read(mesh, loop, jax.ShapeDtypeStruct((8,), jnp.float32))
    assert {c.axes: n for c, n in found.times.items()} == {("fsdp",): 7}


def test_the_tpu_compilers_loops_and_sums(mesh):
    """It does not say how often a loop runs, and a sum of which each device keeps its part is an operation named so."""
    text = """
%all-reduce-scatter.1 (input.1: f32[16,8]) -> f32[4,8] {
  %input.1 = f32[16,8]{1,0:T(8,128)} parameter(0)
  %all-reduce.4 = f32[16,8]{1,0} all-reduce(%input.1), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  ROOT %dynamic-slice.1 = f32[4,8]{1,0} dynamic-slice(%all-reduce.4, %a, %b), dynamic_slice_sizes={4,8}
}

%body.1 (param.1: (s32[], f32[16,8])) -> (s32[], f32[16,8]) {
  %fusion.1 = f32[4,8]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition.1 (param.2: (s32[], f32[16,8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(14)
  %param.2 = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.1 = s32[]{:T(128)} get-tuple-element(%param.2), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.1), direction=LT
}

ENTRY %main.1 (param.3: f32[16,8]) -> f32[16,8] {
  %constant.2 = s32[]{:T(128)} constant(2)
  %copy.1 = s32[]{:T(128)} copy(%constant.2), backend_config={}
  %tuple.1 = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) tuple(%copy.1, %param.3)
  %while.1 = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) while(%tuple.1), condition=%condition.1, body=%body.1
}
"""
    found = collectives(text, AXES, SHAPE)
    whole = 16 * 8 * 4
    assert dict(found.times) == {Collective("reduce-scatter", ("replica", "fsdp"), 4, whole, False): 12}
    assert found.open_loops == 0
    unknown = collectives(text.replace("constant(2)", "parameter(1)"), AXES, SHAPE)
    assert list(unknown.times.values()) == [1] and unknown.open_loops == 1


def test_a_loop_that_only_the_data_ends_is_counted_once_and_named(mesh):
    def body(x):
        return jax.lax.while_loop(lambda c: c.sum() < 10, lambda c: jax.lax.psum(c, AXES) + 1, x)

    found = _read(mesh, body, jax.ShapeDtypeStruct((8,), jnp.float32))
    assert (sum(found.times.values()), found.open_loops) == (1, 1)


def test_what_reaches_beyond_a_slice_is_told_apart(mesh):
    def body(x):
        return jax.lax.psum(jnp.sin(jax.lax.psum(x, "tensor")), "replica")

    slices = np.repeat([0, 1], 4)  # replica lies across
    found = _read(mesh, body, jax.ShapeDtypeStruct((8, 8), jnp.float32), slices)
    assert {c.axes: c.slow for c in found.times} == {("tensor",): False, ("replica",): True}
    assert found.sent_beyond == found.sent / 2


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("{{0,2},{1,3},{4,6},{5,7}}", ("fsdp",)),
        ("[4,2]<=[8]", ("tensor",)),
        ("[4,2]<=[4,2]T(1,0)", ("fsdp",)),
        ("[2,4]<=[2,2,2]T(1,0,2)", ("replica", "tensor")),
        ("mesh['a'=4,'b'=2] {'b'}", ("tensor",)),
        ("mesh['a'=2,'b'=4] {'a'}", ("replica",)),
        ("mesh['a'=8] {'a':(2)2}", ("fsdp",)),
        ("mesh['a'=2,'b'=2,'c'=2], device_ids=([2,4]T(1,0)) {'a'}", ("fsdp",)),
        ("mesh['a'=2,'b'=1,'c'=4], device_ids=([4,2]T(1,0)) {'a'}", ("tensor",)),
        ("{}", AXES),
    ],
)
def test_groups_in_all_their_spellings(groups, axes):
    lines = (
        "ENTRY %main (x: bf16[4]) -> bf16[8] {",
        f"  ROOT %a = bf16[8]{{0}} all-gather(%x), channel_id=1, replica_groups={groups}, dimensions={{0}}",
        "}",
    )
    (found,) = collectives("\n".join(lines), AXES, SHAPE).times
    assert (found.axes, found.payload) == (axes, 16)


def test_started_operations_count_their_result_alone():
    lines = (
        "%started (x: f32[4]) -> f32[8] {",
        "  %g = (f32[4]{0}, f32[8]{0}) all-gather-start(%x), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}",
        "  ROOT %h = f32[8]{0} all-gather-done(%g)",
        "}",
        "ENTRY %main (x: f32[4]) -> f32[8] {",
        "  %p = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%x), channel_id=1, "
        'source_target_pairs={{0,4},{4,0},{1,1}}, metadata={op_name="{2,3}"}',
        "  ROOT %c = f32[8]{0} call(%x), to_apply=%started",
        "}",
    )
    found = collectives("\n".join(lines), AXES, SHAPE).times
    assert {(c.kind, c.axes, c.payload) for c in found} == {
        ("all-gather", ("tensor",), 32),
        ("collective-permute", ("replica",), 16),
    }
