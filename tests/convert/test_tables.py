"""The tables cover every weight of every encoder, in both directions."""

import jax
import numpy as np
import pytest

from medjax.convert.rules import flatten, to_flax
from medjax.convert.tables import TOWERS, encoder_rules
from medjax.models import TOWERS as MODELS
from medjax.models import make_tower
from medjax.models.partitioning import unbox

SMALL = dict(width=8, depth=2, heads=2)
CASES = {
    "vit": (dict(patch=4, pool="cls", **SMALL), {"kind": "image"}, np.zeros((1, 8, 8, 1), np.float32)),
    "ecg_vit": (dict(patch=5, pool="mean", **SMALL), {"kind": "ecg"}, np.zeros((1, 2, 10), np.float32)),
    "bert": (
        dict(positions=6, **SMALL),
        {"kind": "text", "vocab_size": 11},
        {"tokens": np.zeros((1, 4), np.int32), "lengths": np.ones(1, np.int32)},
    ),
    "mlp": (
        dict(hidden=(8, 4)),
        {"kind": "labs"},
        {k: np.zeros((1, 3), np.float32) for k in ("value", "observed")},
    ),
}


def _params(name):
    options, spec, value = CASES[name]
    module = make_tower("m", {"name": name, **options}, spec)
    tree = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), value, np.zeros(1, np.int32), False)["params"]))
    return {f"towers/m/{path}": leaf.shape for path, leaf in flatten(tree).items()}


def test_every_encoder_has_a_table():
    assert TOWERS.keys() == MODELS.keys() == CASES.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_names_go_there_and_back(name):
    rules = encoder_rules({"m": name})
    keys = {}
    for path in _params(name):
        found = [key for r in rules if (key := r.torch_key(path)) is not None]
        assert len(found) == 1, path
        keys[found[0]] = path
        assert [p for r in rules if (p := r.flax_path(found[0])) is not None] == [path]
    assert len(keys) == len(_params(name))


def test_key_names_follow_pytorch():
    keys = {r.torch_key(path) for path in _params("vit") for r in encoder_rules({"m": "vit"})} - {None}
    assert "towers.m.blocks.1.attention.query.weight" in keys
    assert "towers.m.norm.bias" in keys


def test_random_weights_survive_both_directions(rng):
    rules = encoder_rules({"m": "bert"})
    shapes = _params("bert")
    leaves = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    rule = {path: next(r for r in rules if r.torch_key(path)) for path in leaves}
    state = {rule[p].torch_key(p): x.T if rule[p].transpose else x for p, x in leaves.items()}
    back = flatten(to_flax(state, rules, shapes))
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(back[path], leaf)
