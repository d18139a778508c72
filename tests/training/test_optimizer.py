"""Which parameters decay, clipping of the whole gradient, and multiples of the learning rate by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.config import build
from medjax.errors import UserError
from medjax.training.optimizer import OptimizerConfig, decays, make_optimizer
from medjax.training.selection import parameter_names, rate_factors


def test_only_matrices_decay_and_no_positions_tokens_biases_norms_or_scales():
    params = {
        "towers": {
            "image": {
                "patch_embed": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
                "positions": jnp.ones((1, 5, 4)),
                "cls": jnp.ones((1, 1, 4)),
                "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
            }
        },
        "objectives": {"info_nce": {"log_scale": jnp.float32(1.0)}},
    }
    config = OptimizerConfig(lr=0.1, weight_decay=0.5, clip_norm=0.0)
    mask = decays(config, params)
    decayed = [jax.tree_util.keystr(p) for p, x in jax.tree_util.tree_leaves_with_path(mask) if x]
    assert decayed == ["['towers']['image']['patch_embed']['kernel']"]
    # With no gradient at all, decay alone moves what it should, by lr * weight_decay, and nothing else.
    tx = make_optimizer(config, lambda step: 0.1)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["towers"]["image"]["patch_embed"]["kernel"], -0.05, rtol=1e-6)
    assert all(np.all(np.asarray(u) == 0) for u in jax.tree.leaves(updates) if u.shape != (3, 4))


def test_the_gradient_is_clipped_as_a_whole():
    params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((2, 2))}
    big = {"a": jnp.full((2, 2), 30.0), "b": jnp.full((2, 2), 40.0)}
    clipped = make_optimizer(OptimizerConfig(clip_norm=1.0, eps=1.0), lambda step: 1.0)
    free = make_optimizer(OptimizerConfig(clip_norm=0.0, eps=1.0), lambda step: 1.0)
    norm = float(jnp.sqrt(4 * 30.0**2 + 4 * 40.0**2))
    small = jax.tree.map(lambda g: g / norm, big)
    got, _ = clipped.update(big, clipped.init(params), params)
    want, _ = free.update(small, free.init(params), params)
    for k in params:
        np.testing.assert_allclose(got[k], want[k], rtol=1e-5)


def test_the_first_multiplier_that_matches_scales_the_whole_update_with_its_decay():
    params = {
        "towers": {"image": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
        "heads": {"out": jnp.ones((2, 2))},
    }
    config = OptimizerConfig(weight_decay=0.5, lr_multipliers=((r"towers/.*bias", 0.1), (r"towers/image/.*", 0.01)))
    factors = rate_factors(config.lr_multipliers, config.layer_decay, parameter_names(params))
    gradient = jax.tree.map(jnp.ones_like, params)
    updates = []
    for chosen in ({}, factors):
        tx = make_optimizer(config, lambda step: 0.1, chosen)
        updates.append(tx.update(gradient, tx.init(params), params)[0])
    ratio = jax.tree.map(lambda old, new: float(np.mean(new / old)), *updates)
    assert ratio["towers"]["image"] == pytest.approx({"kernel": 0.01, "bias": 0.1}) and ratio["heads"]["out"] == 1.0


BLOCK = "attention/query/kernel"
NAMES = (
    *(f"towers/image/{n}" for n in ("patch_embed/kernel", "positions", "cls", "norm/scale", "attention_pool/probe")),
    *(f"towers/image/blocks/block_{i}/{BLOCK}" for i in range(2)),
    *(f"towers/text/{n}" for n in ("words/embedding", "norm/scale", "pooler/kernel", f"blocks/block_0/{BLOCK}")),
    *("towers/labs/layer_0/kernel", "heads/image/out/kernel", f"lora/image/blocks/block_0/{BLOCK}/a"),
)


def test_layer_decay_falls_from_the_last_block_to_the_embeddings():
    factors = rate_factors((), 0.5, NAMES)
    image = {"patch_embed/kernel": 1 / 8, "positions": 1 / 8, "cls": 1 / 8}
    image |= {f"blocks/block_0/{BLOCK}": 1 / 4, f"blocks/block_1/{BLOCK}": 1 / 2}
    text = {"words/embedding": 1 / 4, "norm/scale": 1 / 4, f"blocks/block_0/{BLOCK}": 1 / 2}
    want = {f"towers/image/{k}": v for k, v in image.items()} | {f"towers/text/{k}": v for k, v in text.items()}
    assert factors == want  # and all else, final norms and pooling too, trains at the full rate


def test_layer_decay_and_multipliers_are_multiplied():
    factors = rate_factors(((r"heads/.*", 10.0), (r".*/positions", 2.0)), 0.5, NAMES)
    assert (factors["heads/image/out/kernel"], factors["towers/image/positions"]) == (10.0, 2.0 / 8)


def test_rates_for_parameters_that_do_not_exist_are_errors():
    with pytest.raises(UserError, match=r"lr_multipliers: 'head/\.\*' matches no parameter.*heads/image \(1\)"):
        rate_factors((("head/.*", 2.0),), 1.0, NAMES)
    with pytest.raises(UserError, match="layer_decay needs a tower of blocks; parameters: heads/out"):
        rate_factors((), 0.5, ["heads/out"])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lr_multipliers": (("a", 0.0),)}, "config.optimizer.freeze keeps"),
        ({"lr_multipliers": (("a",),)}, r"lr_multipliers\[0\] must have 2 entries"),
        ({"lr_multipliers": (("a", "b"),)}, r"lr_multipliers\[0\]\[1\] must be float"),
        ({"layer_decay": 1.5}, "layer_decay=1.5"),
    ],
)
def test_wrong_options_are_named(options, word):
    with pytest.raises(UserError, match=word):
        build(OptimizerConfig, options, "config.optimizer")
