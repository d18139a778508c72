"""The tables cover every weight of every encoder, in both directions."""

import jax
import numpy as np
import pytest

from medjax.convert.architecture import exported_tree, params_and_state
from medjax.convert.rules import flatten, to_flax, to_torch, unflatten
from medjax.convert.tables import TOWERS, encoder_rules
from medjax.models import TOWERS as MODELS
from medjax.models import make_tower
from medjax.models.aggregation import Pool, PoolConfig
from medjax.models.partitioning import unbox

SMALL = dict(width=8, depth=2, heads=2)
PICTURE = {"value": np.zeros((1, 8, 8, 1), np.float32)}
ECG = {"value": np.zeros((1, 2, 10), np.float32)}
TEXT = {"tokens": np.zeros((1, 4), np.int32), "lengths": np.ones(1, np.int32)}
LABS = {k: np.zeros((1, 3), np.float32) for k in ("value", "observed")}
RESNET = dict(depths=(1, 1), stem=4)
WHOLE = dict(swiglu=True, qk_norm=True, layer_scale=0.1, **SMALL)
# (options, input) with every option that adds weights.
CASES = {
    "vit": (
        dict(patch=4, pool="attention", cls=True, cls_position=True, registers=1, mask_token=True, depth_grid=2)
        | dict(pooler=True, norm_before=True, **WHOLE),
        PICTURE,
    ),
    "ecg_vit": (dict(patch=5, tokens="lead_time", **SMALL), ECG),
    "labs_transformer": (dict(missing="token", **SMALL), LABS),
    "bert": (dict(types=2, pooler="tanh", positions=6, **WHOLE), TEXT),
    "roberta": (SMALL, TEXT),
    "clip_text": (SMALL, TEXT),
    "siglip_text": (SMALL, TEXT),
    "mlp": (dict(hidden=(8, 4)), LABS),
    "resnet": (RESNET, PICTURE),
    "resnet_ecg": (RESNET, ECG),
    "resnet_ecg_image": (RESNET, ECG),
}


def _shapes(name, **more):
    options, value = CASES[name]
    module = make_tower("m", {"name": name, **options, **more}, {"kind": MODELS[name][2][0], "vocab_size": 11})
    tree = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), **value)))
    return {f"towers/m/{path}": leaf for path, leaf in flatten(tree).items()}


def _bijective(paths, rules):
    keys = {}
    for path in paths:
        found = [key for r in rules if (key := r.torch_key(path)) is not None]
        assert len(found) == 1, path
        keys[found[0]] = path
        assert [p for r in rules if (p := r.flax_paths(found[0])) is not None] == [(path,)]
    assert len(keys) == len(paths)
    return keys


def test_every_encoder_has_a_table():
    assert TOWERS.keys() == MODELS.keys() == CASES.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_names_go_there_and_back(name):
    _bijective(_shapes(name), encoder_rules({"m": name}))


@pytest.mark.parametrize("name", ["attention", "gated"])
def test_pools_go_there_and_back(name):
    x, mask = np.zeros((1, 2, 8), np.float32), np.ones((1, 2), bool)
    tree = jax.eval_shape(lambda: unbox(Pool(PoolConfig(name, 2)).init(jax.random.key(0), x, mask)["params"]))
    _bijective([f"pooling/m/{path}" for path in flatten(tree)], encoder_rules({"m": "mlp"}))


def test_convolutions_of_an_ecg_go_there_and_back():
    _bijective(_shapes("ecg_vit", tokens="conv"), encoder_rules({"m": "ecg_vit"}))


def test_key_names_follow_pytorch():
    keys = _bijective(_shapes("vit"), encoder_rules({"m": "vit"})).keys()
    keys |= _bijective(_shapes("resnet"), encoder_rules({"m": "resnet"})).keys()
    for key in ("blocks.1.attention.query.weight", "norm.bias", "stages.1.0.layers.2.norm.running_var"):
        assert f"towers.m.{key}" in keys


@pytest.mark.parametrize("name", ["bert", "resnet_ecg"])
def test_random_weights_survive_both_directions(name, rng):
    rules, shapes = encoder_rules({"m": name}), _shapes(name)
    leaves = {path: rng.normal(size=x.shape).astype(x.dtype) for path, x in shapes.items()}
    state = to_torch(unflatten(leaves), rules)
    back = flatten(to_flax(state, rules, {path: x.shape for path, x in shapes.items()}))
    assert back.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(back[path], leaf)
        assert back[path].dtype == leaf.dtype


def test_an_exported_tree_holds_statistics_and_leaves_the_rest_behind():
    params = {"towers": {"a": {"w": 1}, "b": {"w": 2}}, "heads": {"a": 3}, "decoders": {"a": 4}}
    state = {"batch_stats": {"b": {"mean": 5}}, "queue": 6}
    kept = {k: v for k, v in params.items() if k != "decoders"}
    assert params_and_state(exported_tree(params, state)) == (kept, {"batch_stats": state["batch_stats"]})
