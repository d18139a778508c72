"""Looking inside changes nothing, what is changed has its effect, and plain towers compute what theirs do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models import make_tower
from medjax.models.inspection import changing, plain
from medjax.models.partitioning import unbox

FLOAT32 = 1e-5  # activations of unit size through two blocks
VIT = {"name": "vit", "width": 8, "depth": 2, "heads": 2, "patch": 4, "pool": "attention"}
RESNET = {"name": "resnet", "stem": 4, "block": "basic", "depths": (1, 1)}


def made(options, rng):
    tower = make_tower("image", options, {"kind": "image"})
    x = rng.normal(size=(2, 16, 16, 1)).astype(np.float32)
    params = unbox(jax.jit(tower.init)(jax.random.key(0), x))
    return tower, jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params), x


def pooled(tower, params, x):
    return jax.jit(tower.apply)(params, x).pooled


def test_the_outputs_of_all_parts_are_seen_and_left_as_they_are(rng):
    tower, params, x = made(VIT, rng)
    seen = {}

    def note(path, output):
        seen[path] = output
        return output

    with changing(note):
        found = tower.apply(params, x)
    expected = tower.apply(params, x)
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=FLOAT32)
    np.testing.assert_array_equal(seen[""].tokens, found.tokens)
    assert {"blocks", "blocks/block_1", "blocks/block_1/mlp"} < set(seen)
    _, sown = tower.apply(params, x, mutable=["intermediates"])
    for i in range(2):
        (maps,) = sown["intermediates"]["blocks"][f"block_{i}"]["attention"]["attention"]
        np.testing.assert_allclose(seen[f"blocks/block_{i}/attention/maps"], maps, atol=FLOAT32)
    assert seen["attention_pool/attention/maps"].shape == (2, 2, 1, 16)


def test_a_change_of_a_map_changes_what_follows_and_nothing_before(rng):
    tower, params, x = made(VIT, rng)
    kept = {}

    def uniform(path, output):
        output = jnp.full_like(output, 1 / output.shape[-1]) if path == "blocks/block_1/attention/maps" else output
        kept.setdefault(path, output)
        return output

    with changing(uniform):
        changed = tower.apply(params, x)
    plain_one = tower.apply(params, x, capture_intermediates=True, mutable=["intermediates"])[1]["intermediates"]
    (before,) = plain_one["blocks"]["block_0"]["__call__"]
    np.testing.assert_allclose(kept["blocks/block_0"], before, atol=FLOAT32)
    assert np.abs(changed.pooled - tower.apply(params, x).pooled).max() > 1e-3


def test_nothing_of_it_is_in_the_program_otherwise(rng):
    """Outside of `changing` no map is computed: the program is the same before and after one was looked at."""
    tower, params, x = made(VIT, rng)
    before = str(jax.make_jaxpr(lambda x: tower.apply(params, x).pooled)(x))
    with changing(lambda path, output: output):
        within = str(jax.make_jaxpr(lambda x: tower.apply(params, x).pooled)(x))
    assert str(jax.make_jaxpr(lambda x: tower.apply(params, x).pooled)(x)) == before != within


@pytest.mark.parametrize(
    "how", [{"scan": True, "remat": "full", "remat_save": ("attention",)}, {"dtype": "bfloat16", "remat": "dots"}]
)
def test_a_plain_vit_has_the_same_parameters_and_result(rng, how):
    tower, params, x = made(VIT | how, rng)
    other = plain(tower)
    assert (other.config.scan, other.config.remat, other.config.dtype) == (False, "none", "float32")
    tolerance = 0.1 if "dtype" in how else FLOAT32  # bfloat16 has eight bits
    np.testing.assert_allclose(pooled(other, params, x), pooled(tower, params, x), atol=tolerance)


def test_a_plain_residual_network_keeps_what_it_is(rng):
    tower, params, x = made(RESNET | {"remat": "full"}, rng)
    other = plain(tower)
    assert other.config.remat == "none" and other.config.depths == (1, 1)
    np.testing.assert_allclose(pooled(other, params, x), pooled(tower, params, x), atol=FLOAT32)
