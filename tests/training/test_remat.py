"""Rematerialisation and the loop over blocks: memory, and the same step on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_batch import SPECS, make_batch

from medjax.errors import UserError
from medjax.methods import make_method
from medjax.models.blocks import Blocks, BlocksConfig
from medjax.models.partitioning import axis_rules, unbox
from medjax.sharding import ACTIVATION_RULES, MeshConfig, make_mesh, to_global
from medjax.training.optimizer import OptimizerConfig, make_optimizer
from medjax.training.selection import path_name
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step


def kept_and_computed(**options) -> tuple[int, int]:
    """Bytes that the forward pass of a stack of blocks keeps for the backward pass, and matrix products of both."""
    module, rows = Blocks(BlocksConfig(width=32, depth=2, heads=2, **options)), jnp.arange(4)
    x = jax.ShapeDtypeStruct((4, 64, 32), jnp.float32)
    params = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), jnp.zeros(x.shape), rows, False)))

    def loss(params, x):
        return jnp.sum(module.apply(params, x, rows, False) ** 2)

    residuals = jax.eval_shape(lambda params, x: jax.vjp(loss, params, x)[1], params, x)
    products = str(jax.make_jaxpr(jax.grad(loss))(params, x)).count("dot_general")
    return sum(r.size * r.dtype.itemsize for r in jax.tree.leaves(residuals)), products


def test_what_is_recomputed_takes_no_memory_and_what_is_kept_no_products():
    none, dots, full, saved = (
        kept_and_computed(**how)
        for how in (
            {},
            {"remat": "dots"},
            {"remat": "full"},
            {"remat": "full", "remat_save": ("query", "key", "value")},
        )
    )
    assert full[0] < saved[0] < dots[0] < none[0]
    # Three activations of two blocks, less the biases that made them.
    assert saved[0] - full[0] == 2 * 3 * 4 * (4 * 64 * 32 - 32)
    assert none[1] < dots[1] < full[1] and saved[1] < full[1]


def compiled_bytes(remat: str) -> int:
    """Temporaries of the compiled gradient of a scanned stack of blocks."""
    module, rows = Blocks(BlocksConfig(width=32, depth=4, heads=2, scan=True, remat=remat)), jnp.arange(2)
    x = jax.ShapeDtypeStruct((2, 128, 32), jnp.float32)
    params = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), jnp.zeros(x.shape), rows, False)))
    gradient = jax.jit(jax.grad(lambda params, x: jnp.sum(module.apply(params, x, rows, False) ** 2)))
    return gradient.lower(params, x).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_a_compiled_loop_needs_the_less_memory_the_more_it_recomputes():
    assert compiled_bytes("full") < compiled_bytes("dots") < compiled_bytes("none")


def test_only_activations_that_there_are_can_be_kept():
    with pytest.raises(
        UserError, match="unknown activation in a transformer's remat_save 'querry'; did you mean 'query'"
    ):
        BlocksConfig(remat="full", remat_save=("querry",))
    with pytest.raises(UserError, match="needs remat='full'"):
        BlocksConfig(remat="dots", remat_save=("query",))


@pytest.mark.slow
def test_a_scanned_and_rematerialised_tower_takes_the_same_sharded_step():
    blocks = {"width": 16, "depth": 3, "heads": 2, "drop_path": 0.4, "dropout": 0.1}
    mesh, batch = make_mesh(MeshConfig(fsdp=4, tensor=2)), make_batch(np.random.default_rng(0), 8, 1, ("labs", "text"))
    after = []
    for how in ({}, {"scan": True, "remat": "full"}):
        towers = {"labs": {"name": "mlp", "hidden": (16,)}, "text": {"name": "bert", "positions": 8, **blocks, **how}}
        objectives = {"info_nce": {"scale": 5.0}}
        method = make_method({"name": "contrastive", "towers": towers, "embed_dim": 8, "objectives": objectives}, SPECS)
        tx = make_optimizer(OptimizerConfig(name="sgd", weight_decay=0.0), lambda step: 1.0)
        with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
            factory = StateFactory(method, tx, mesh, to_global(batch, mesh))
            state, _ = make_train_step(method, tx, lambda step: 1.0, 0)(factory.fresh(0), factory.batch)
        wrong = [
            path_name(path)
            for (path, x), s in zip(
                jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(factory.shardings[0]), strict=True
            )
            if not x.sharding.is_equivalent_to(s, x.ndim)
        ]
        assert not wrong
        kernel = state.params["towers"]["text"]["blocks"]["block_2"]["mlp"]["up"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (16 // 4, 64 // 2)
        after.append(jax.device_get(state))
    # The momentum is the gradient.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *after)
