"""FLOPs counted in a program against counts by hand and by XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from methods_batch import SPECS, make_batch

from medjax.methods import make_method
from medjax.sharding import MeshConfig, make_mesh
from medjax.training.flops import matmul_flops, model_flops


def _abstract(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


X, W = _abstract(4, 8), _abstract(8, 8)
ONCE = 2 * 4 * 8 * 8


def _scanned(x, w):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=5)[0]


@pytest.mark.parametrize(
    ("fn", "times"),
    [
        pytest.param(lambda x, w: x @ w, 1, id="product"),
        pytest.param(lambda x, w: jax.jit(lambda y: y @ w)(x) @ w, 2, id="jit"),
        pytest.param(_scanned, 5, id="scan"),
        pytest.param(lambda x, w: jax.lax.fori_loop(0, 3, lambda i, c: c @ w, x), 3, id="fori_loop"),
        pytest.param(lambda x, w: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ w, x), 1, id="while_loop"),
        pytest.param(lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda y: y @ w @ w, lambda y: y @ w, x), 2, id="cond"),
        pytest.param(lambda x, w: jax.checkpoint(lambda y: y @ w)(x), 1, id="remat"),
        pytest.param(lambda x, w: (x, x @ w)[0], 0, id="unused"),
        # Forward and two products backward; what is recomputed takes the place of the first.
        pytest.param(jax.grad(lambda x, w: jnp.tanh(x @ w).sum(), (0, 1)), 3, id="gradient"),
        pytest.param(
            jax.grad(lambda x, w: jax.checkpoint(lambda y: jnp.sin(y @ w))(x).sum(), (0, 1)),
            3,
            id="remat of one product",
        ),
        pytest.param(jax.grad(lambda x, w: jax.checkpoint(_scanned)(x, w).sum(), (0, 1)), 15, id="remat of a scan"),
        pytest.param(lambda x, w: jax.vmap(lambda r: r @ w)(x), 1, id="vmap"),
    ],
)
def test_products_count_as_often_as_they_run(fn, times):
    assert matmul_flops(fn, X, W) == times * ONCE


def test_custom_derivatives_count_what_they_do():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    assert matmul_flops(product, X, W) == ONCE
    assert matmul_flops(jax.grad(lambda x, w: jnp.sin(product(x, w)).sum(), (0, 1)), X, W) == 3 * ONCE
    assert matmul_flops(jax.jit(jax.nn.relu), X) == 0


def test_convolutions():
    def convolve(x, k, groups=1):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, k, (2, 2), "VALID", dimension_numbers=names, feature_group_count=groups)

    x, k = _abstract(3, 9, 9, 4), _abstract(3, 3, 4, 6)
    assert matmul_flops(convolve, x, k) == 2 * (3 * 4 * 4 * 6) * (3 * 3 * 4)
    grouped = _abstract(3, 3, 2, 6)
    assert matmul_flops(lambda x, k: convolve(x, k, 2), x, grouped) == 2 * (3 * 4 * 4 * 6) * (3 * 3 * 2)


def test_attention():
    q, k = _abstract(2, 5, 3, 8), _abstract(2, 7, 3, 8)
    scores = 2 * (2 * 3 * 5 * 7) * 8
    assert matmul_flops(lambda q, k: jax.nn.dot_product_attention(q, k, k), q, k) == 2 * scores


def test_devices_add_up_unless_they_do_the_same():
    mesh = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))

    def split(x, w):
        rows = PartitionSpec(("replica", "fsdp"))
        return jax.shard_map(lambda x, w: x @ w, in_specs=(rows, PartitionSpec()), out_specs=rows)(x, w)

    with jax.set_mesh(mesh):
        assert matmul_flops(split, X, W) == ONCE


def test_count_is_that_of_xla():
    def network(x, w, k):
        x = jax.nn.relu(x @ w).reshape(4, 8, 1, 1)
        return jax.lax.conv_general_dilated(x, k, (1, 1), "VALID")

    arguments = X, W, _abstract(16, 8, 1, 1)
    found = jax.jit(network).lower(*arguments).compile().cost_analysis()["flops"]
    ours = matmul_flops(network, *arguments)
    assert ours <= found <= 1.1 * ours  # XLA counts the activations too


def _contrastive(rows, **options):
    """Of a picture encoder and a text encoder, with abstract parameters, state and batch."""
    towers = {
        "image": {"name": "vit", "patch": 4, "width": 8, "depth": 2, "heads": 2, **options},
        "text": {"name": "bert", "width": 16, "depth": 3, "heads": 2, "positions": 8, "pool": "mean", **options},
    }
    options = {"name": "contrastive", "embed_dim": 8, "towers": towers, "objectives": {"info_nce": {}}}
    method = make_method(options, SPECS)
    batch = make_batch(np.random.default_rng(0), rows, 1, ("image", "text"))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    return method, *jax.eval_shape(method.init, jax.random.key(0), batch), batch


def _block(tokens, width):
    """Queries, keys, values and output, scores and weighted values, and an MLP four times as wide."""
    return 2 * tokens * width * (4 * width + 2 * tokens + 8 * width)


@pytest.mark.parametrize("options", [{}, {"remat": "full"}, {"remat": "dots", "scan": True}], ids=str)
def test_model_flops_of_a_step_are_three_forward_passes_however_they_are_computed(options):
    rows = 8
    image = 2 * 4 * 16 * 8 + 2 * _block(5, 8) + 2 * 8 * 8  # patches of 16 pixels, blocks with a class token, projection
    text = 3 * _block(5, 16) + 2 * 16 * 8
    loss = 2 * rows * rows * 8
    assert model_flops(*_contrastive(rows, **options)) == 3 * (rows * (image + text) + loss)


def test_model_flops_do_not_depend_on_the_mesh():
    arguments = _contrastive(8)
    alone = model_flops(*arguments)
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=2, tensor=2))):
        assert model_flops(*arguments) == alone
