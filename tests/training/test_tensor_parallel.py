"""Wide layers split over devices: the same step, and no weight that any device gathers whole."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from methods_batch import SPECS, make_batch

from medjax.methods import make_method
from medjax.models.partitioning import axis_rules
from medjax.sharding import ACTIVATION_RULES, MeshConfig, make_mesh, to_global
from medjax.sharding.mesh import AXES
from medjax.training.planning.hlo import collectives
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step

WIDTH, HEADS, ROWS = 32, 4, 4
pytestmark = pytest.mark.slow
OPTIONS = {
    "name": "contrastive",
    "embed_dim": 8,
    "towers": {
        "image": {"name": "vit", "patch": 4, "width": WIDTH, "depth": 1, "heads": HEADS, "dropout": 0.1},
        "text": {"name": "bert", "width": WIDTH, "depth": 1, "heads": HEADS, "positions": 8},
    },
    "objectives": {"info_nce": {}},
}


def _run(mesh_shape, start=None):
    """The state before and after a step, its metrics, its collectives and where the parameters lie. The optimizer is
    plain descent, so that parameters show the gradient. start: the state before; default a fresh one."""
    mesh = make_mesh(MeshConfig(**mesh_shape), jax.devices()[: math.prod(mesh_shape.values())])
    method = make_method(OPTIONS, SPECS)
    batch = make_batch(np.random.default_rng(0), ROWS, 1, ("image", "text"))
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        batch = to_global(batch, mesh)
        tx = optax.sgd(1.0)
        factory = StateFactory(method, tx, mesh, batch)
        step = make_train_step(method, tx, lambda step: jnp.float32(1.0), seed=0)
        step = step.lower(factory.abstract(), batch).compile()
        found = collectives(step.as_text(), AXES, mesh.devices.shape)
        state = factory.fresh(0) if start is None else jax.device_put(start, factory.shardings[0])
        before = jax.tree.map(np.asarray, state)
        state, metrics = step(state, batch)
    placed = {p.path: p for p in factory.shardings[1]}
    after = jax.tree.map(np.asarray, state.params)
    return before, after, {k: float(v) for k, v in metrics.items()}, found, placed


@pytest.fixture(scope="module")
def reference():
    """Of one device."""
    return _run({"fsdp": 1})


@pytest.mark.parametrize(
    "mesh",
    [
        {"tensor": 2, "fsdp": 2, "replica": 2},
        {"tensor": 4, "fsdp": 2},
        {"tensor": 8},
    ],
    ids=str,
)
def test_the_step_is_that_of_whole_layers(mesh, reference):
    start, expected, whole, _, _ = reference
    _, params, metrics, found, placed = _run(mesh, start)
    for name in ("train/loss", "train/gradient_norm"):
        assert metrics[name] == pytest.approx(whole[name], rel=1e-5)
    # Of sums in another order, in float32, beside the largest of them.
    error = 4e-6 * max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=error), params, expected)

    block = "towers/image/blocks/block_0"
    uneven = HEADS % mesh["tensor"]
    split = None if uneven else "tensor"
    fsdp = "fsdp" if mesh.get("fsdp", 1) > 1 else None
    for name in ("query", "key", "value"):
        row = placed[f"{block}/attention/{name}/kernel"]
        assert row.spec == PartitionSpec(fsdp, split)
        assert ("heads do not divide" in row.note) == bool(uneven)
    assert placed[f"{block}/attention/out/kernel"].spec == PartitionSpec(split, fsdp)
    assert placed[f"{block}/mlp/up/kernel"].spec == PartitionSpec(fsdp, "tensor")
    assert placed[f"{block}/mlp/down/kernel"].spec == PartitionSpec("tensor", fsdp)
    # Partial sums of attention and MLP meet over tensor. Weights are gathered over fsdp alone: what tensor gathers is
    # smaller than the least of them.
    assert any(c.kind == "all-reduce" and c.axes == ("tensor",) for c in found.times)
    least = WIDTH * WIDTH * 4 // mesh.get("fsdp", 1)
    gathered = [c for c in found.times if c.kind == "all-gather" and "tensor" in c.axes]
    assert all(c.payload < least for c in gathered), gathered
