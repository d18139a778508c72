"""Names and shapes between a Flax tree and a PyTorch state."""

import numpy as np
import pytest

from medjax.convert.rules import Rule, flatten, linear, norm, to_flax, to_torch, unflatten
from medjax.errors import UserError

RULES = (*linear("block_{i}/up", "blocks.{i}.up"), *norm("norm", "norm"), Rule("log_scale", "log_scale"))


def _tree(rng):
    up = {"kernel": rng.normal(size=(3, 5)).astype(np.float32), "bias": rng.normal(size=5).astype(np.float32)}
    scale = {"scale": rng.normal(size=3).astype(np.float32), "bias": rng.normal(size=3).astype(np.float32)}
    return {"block_10": {"up": up}, "norm": scale, "log_scale": np.float32(2.5)}


_SHAPES = {"blocks.10.up.weight": (5, 3), "blocks.10.up.bias": (5,), "norm.weight": (3,), "norm.bias": (3,)}
SHAPES = _SHAPES | {"log_scale": ()}


def test_round_trip_is_bit_equal(rng):
    tree = _tree(rng)
    state = to_torch(tree, RULES, SHAPES)
    back = to_flax(state, RULES, {path: np.shape(x) for path, x in flatten(tree).items()})
    assert flatten(back).keys() == flatten(tree).keys()
    for path, leaf in flatten(tree).items():
        np.testing.assert_array_equal(flatten(back)[path], leaf)


def test_kernels_are_transposed_and_scalars_stay_scalars(rng):
    tree = _tree(rng)
    state = to_torch(tree, RULES, SHAPES)
    np.testing.assert_array_equal(state["blocks.10.up.weight"], tree["block_10"]["up"]["kernel"].T)
    assert state["blocks.10.up.weight"].flags["C_CONTIGUOUS"]
    assert state["log_scale"].shape == ()


def test_every_mismatch_is_named_at_once(rng):
    tree = _tree(rng)
    tree["stranger"] = np.zeros(2, np.float32)
    tree["norm"].pop("bias")
    tree["block_10"]["up"]["bias"] = np.zeros(4, np.float32)
    with pytest.raises(UserError) as error:
        to_torch(tree, RULES, SHAPES)
    message = str(error.value)
    assert "stranger is not expected" in message
    assert "norm.bias is missing" in message
    assert "blocks.10.up.bias has shape [4] and should have [5]" in message


def test_mismatches_of_the_other_direction_use_flax_names(rng):
    tree = _tree(rng)
    state = to_torch(tree, RULES, SHAPES)
    state["blocks.10.up.weight"] = state["blocks.10.up.weight"][:, :2]
    shapes = {path: np.shape(x) for path, x in flatten(tree).items()} | {"block_11/up/bias": (5,)}
    with pytest.raises(UserError) as error:
        to_flax(state, RULES, shapes)
    assert "block_10/up/kernel has shape [2, 5] and should have [3, 5]" in str(error.value)
    assert "block_11/up/bias is missing" in str(error.value)


def test_placeholders_do_not_cross_separators():
    rule = Rule("block_{i}/kernel", "blocks.{i}.weight")
    assert rule.torch_key("block_1/inner/kernel") is None
    assert rule.flax_paths("blocks.1.inner.weight") is None
    assert rule.torch_key("block_1/kernel") == "blocks.1.weight"


def test_unflatten_inverts_flatten(rng):
    leaves = flatten(_tree(rng))
    assert flatten(unflatten(leaves)).keys() == leaves.keys()
