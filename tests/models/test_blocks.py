"""Transformer blocks: ways to run them, randomness by global row, masks, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models.blocks import ACTIVATIONS, Blocks, BlocksConfig
from medjax.models.partitioning import unbox

KEY = jax.random.key(4)
FLOAT32 = 1e-5  # activations of unit size through two blocks
SMALL = dict(width=8, depth=2, heads=2)
EVERYTHING = dict(swiglu=True, qk_norm=True, layer_scale=0.5)
CHANCE = dict(dropout=0.1, drop_path=0.3, drop_key=0.3, drop_key_schedule="linear")


def make(rng, rows=6, **options):
    x = rng.normal(size=(rows, 5, 8)).astype(np.float32)
    init = jax.jit(Blocks(BlocksConfig(**SMALL, **options)).init, static_argnums=3)
    params = unbox(init(jax.random.key(0), x, jnp.arange(rows), False))
    # Scales of residuals start at a constant; others tell the blocks apart.
    return jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params), x


def run(params, x, rows=None, train=True, lengths=None, keep=None, **options):
    rows = jnp.arange(len(x)) if rows is None else rows
    module = Blocks(BlocksConfig(**SMALL, **options))
    apply = jax.jit(lambda p, x: module.apply(p, x, rows, train, lengths=lengths, keep=keep, rngs={"dropout": KEY}))
    return apply(params, x)


def test_scan_and_remat_compute_what_the_plain_stack_does(rng):
    params, x = make(rng, **EVERYTHING)
    lengths = np.array([5, 4, 3, 2, 1, 5])

    def value_and_gradient(**how):
        def loss(p):
            return jnp.sum(run(p, x, lengths=lengths, **EVERYTHING, **CHANCE, **how)[:, 0] ** 2)

        return jax.jit(jax.value_and_grad(loss))(params)

    value, gradient = value_and_gradient()
    for how in (dict(remat="full"), dict(scan=True, remat="dots")):
        other, other_gradient = value_and_gradient(**how)
        np.testing.assert_allclose(other, value, rtol=FLOAT32)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), other_gradient, gradient)


def test_a_scan_is_one_loop_in_the_program(rng):
    params, x = make(rng)
    text = {s: str(jax.make_jaxpr(lambda p, s=s: run(p, x, scan=s))(params)) for s in (True, False)}
    assert text[True].count("scan[") == 1 and text[False].count("scan[") == 0


def test_micro_batches_equal_the_whole_batch(rng):
    params, x = make(rng)
    apply = jax.jit(lambda x, rows: run(params, x, rows, **CHANCE))
    whole = apply(x, jnp.arange(6))
    parts = [apply(x[i : i + 3], jnp.arange(i, i + 3)) for i in (0, 3)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=FLOAT32)
    assert np.abs(whole - apply(x, jnp.arange(6, 12))).max() > 1e-2


@pytest.mark.parametrize("name", ["dropout", "drop_path", "drop_key"])
def test_randomness_is_off_at_evaluation_and_on_in_training(rng, name):
    params, x = make(rng)
    options = {name: 0.5}
    plain = run(params, x, train=False)
    np.testing.assert_array_equal(run(params, x, train=False, **options), plain)
    assert np.abs(run(params, x, train=True, **options) - plain).max() > 1e-2


def test_paths_are_dropped_for_whole_rows_and_never_in_the_first_block(rng):
    params, x = make(rng, rows=64)
    rows = jnp.arange(64)

    def blocks(depth, **options):
        part = {"params": {f"block_{i}": params["params"][f"block_{i}"] for i in range(depth)}}
        module = Blocks(BlocksConfig(width=8, depth=depth, heads=2, **options))
        return module.apply(part, x, rows, True, rngs={"dropout": KEY})

    np.testing.assert_array_equal(blocks(1, drop_path=0.9), blocks(1))
    moved = np.abs(blocks(2, drop_path=0.9) - blocks(1)).max(axis=(1, 2))
    share = np.mean(moved == 0)  # of rows whose second block was dropped in both of its residuals
    assert abs(share - 0.81) < 5 * np.sqrt(0.81 * 0.19 / 64)


@pytest.mark.parametrize("how", ["lengths", "keep"])
def test_padding_has_no_influence(rng, how):
    params, x = make(rng)
    lengths = np.array([5, 4, 3, 2, 1, 3])
    keep = np.arange(5)[None] < lengths[:, None]
    mask = {"lengths": lengths} if how == "lengths" else {"keep": keep}
    other = np.where(keep[..., None], x, 100.0).astype(np.float32)
    a, b = (run(params, v, train=False, **mask) for v in (x, other))
    np.testing.assert_allclose(a[keep], b[keep], atol=FLOAT32)


def test_causal_tokens_see_only_those_before(rng):
    params, x = make(rng)
    gradient = jax.grad(lambda v: run(params, v, train=False, causal=True)[:, 2].sum())(x)
    assert np.any(gradient[:, 1]) and not np.any(gradient[:, 3:])


def test_drop_key_masks_keys_and_does_not_rescale(rng):
    """Attention weights still sum to one: with equal values nothing changes, whatever is dropped."""
    params, x = make(rng)
    x = np.broadcast_to(x[:, :1], x.shape)
    np.testing.assert_allclose(run(params, x, drop_key=0.5), run(params, x), atol=FLOAT32)


def test_attention_maps_are_sown_on_request_and_are_distributions(rng):
    params, x = make(rng)
    lengths = np.array([5, 4, 3, 2, 1, 3])
    module = Blocks(BlocksConfig(**SMALL, scan=True))
    out, state = module.apply(params, x, jnp.arange(6), False, lengths=lengths, mutable=["intermediates"])
    np.testing.assert_allclose(out, run(params, x, train=False, lengths=lengths), atol=FLOAT32)
    for i in range(2):
        (maps,) = state["intermediates"][f"block_{i}"]["attention"]["attention"]
        assert maps.shape == (6, 2, 5, 5)
        np.testing.assert_allclose(maps.sum(axis=-1), 1.0, atol=FLOAT32)
        assert not np.any(np.moveaxis(maps, 3, 1)[np.arange(5)[None] >= lengths[:, None]])


@pytest.mark.parametrize("norm_first", [True, False])
def test_norms_run_in_float32_in_a_bfloat16_stack(norm_first):
    """A large common offset would drown the differences in bfloat16, were the norm to subtract it there."""
    module = Blocks(BlocksConfig(width=8, depth=1, heads=2, norm_first=norm_first, dtype="bfloat16"))
    x = jnp.zeros((2, 5, 8), jnp.bfloat16)
    rows = jnp.arange(2)
    params = module.init(jax.random.key(0), x, rows, False)
    text = str(jax.make_jaxpr(lambda x: module.apply(params, x, rows, False))(x))
    roots = [line for line in text.splitlines() if " rsqrt" in line]
    assert len(roots) == 2
    assert all(":f32[" in line for line in roots)


def test_activations_are_what_their_names_say():
    x = np.linspace(-3, 3, 13)
    sigmoid = 1 / (1 + np.exp(-1.702 * x))
    np.testing.assert_allclose(ACTIVATIONS["quick_gelu"](x), x * sigmoid, atol=1e-6)
    assert np.abs(ACTIVATIONS["gelu"](x) - ACTIVATIONS["gelu_tanh"](x)).max() > 1e-5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (dict(width=10, heads=4), "width=10"),
        (dict(drop_path=1.0), "drop_path=1.0"),
        (dict(attention="cudnn"), "bfloat16"),
        (dict(attention="cudnn", dtype="bfloat16", drop_key=0.1), "no drop_key"),
    ],
)
def test_options_that_cannot_be_are_named(options, named):
    with pytest.raises(UserError, match=named):
        BlocksConfig(**options)
