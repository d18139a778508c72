"""The encoders of lab values: what was not observed does not matter, and that it was not may."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models import make_tower
from medjax.models.partitioning import unbox

SMALL = {"width": 8, "depth": 1, "heads": 2}
TOWERS = {
    "mlp": {"name": "mlp", "hidden": (8, 6)},
    "masked": {"name": "labs_transformer", **SMALL},
    "token": {"name": "labs_transformer", "missing": "token", **SMALL},
}
FLOAT32 = 1e-5


def make(tower, **options):
    return make_tower("labs", {**TOWERS[tower], **options}, {"kind": "labs"})


@functools.cache
def compiled(tower):
    """(parameters of four numbers, features, gradient of the features by parameters and value)."""
    module = make(tower)
    zero = jnp.zeros((5, 4))
    params = unbox(jax.jit(lambda: module.init(jax.random.key(0), zero, observed=zero))())
    apply = jax.jit(lambda value, observed: module.apply(params, value, observed=observed))

    def loss(params, value, observed):
        return jnp.sum(jnp.sin(module.apply(params, value, observed=observed).pooled))

    return params, apply, jax.jit(jax.grad(loss, argnums=(0, 1)))


@pytest.fixture
def table(rng):
    """Values and what was observed; the last row has nothing."""
    observed = (rng.random((5, 4)) < 0.6).astype(np.float32)
    observed[0], observed[4] = 1, 0
    return rng.normal(size=(5, 4)).astype(np.float32), observed


@pytest.mark.parametrize("tower", TOWERS)
def test_values_that_were_not_observed_do_not_matter(tower, table):
    (value, observed), (params, apply, gradient) = table, compiled(tower)
    other = np.where(observed > 0, value, 1e3).astype(np.float32)
    np.testing.assert_array_equal(apply(other, observed).pooled, apply(value, observed).pooled)
    by_params, by_value = gradient(params, value, observed)
    assert np.isfinite(apply(value, observed).pooled).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(by_params))
    np.testing.assert_array_equal(by_value != 0, observed > 0)


@pytest.mark.parametrize("tower", TOWERS)
def test_missing_and_zero_differ(tower):
    _, apply, _ = compiled(tower)
    zero = np.zeros((5, 4), np.float32)
    pooled = [apply(zero, observed).pooled for observed in (zero, np.ones_like(zero))]
    assert np.abs(pooled[0] - pooled[1]).max() > 1e-2


def test_features_of_the_mlp_are_one_token(table):
    features = compiled("mlp")[1](*table)
    assert features.pooled.shape == (5, 6)
    np.testing.assert_array_equal(features.tokens[:, 0], features.pooled)
    assert features.token_mask.all()


@pytest.mark.parametrize("tower", ["masked", "token"])
def test_every_number_is_a_token_behind_the_class_token(tower, table):
    features = compiled(tower)[1](*table)
    assert features.patches.shape == (5, 4, 8)
    np.testing.assert_array_equal(features.pooled, features.tokens[:, 0])
    np.testing.assert_array_equal(features.patch_mask, (table[1] > 0) | (tower == "token"))


def test_tokens_are_values_times_weights_plus_biases(table):
    module, (value, observed) = make("token", depth=0), table
    params = unbox(jax.jit(lambda: module.init(jax.random.key(1), value))())["params"]
    tokens = jax.jit(lambda: module.apply({"params": params}, value, observed=observed).patches)()
    weight, bias, missing = (np.asarray(params[f"number_{k}"], np.float64) for k in ("weight", "bias", "missing"))
    want = np.where(observed[..., None] > 0, value[..., None] * weight + bias, missing)
    want = want - want.mean(-1, keepdims=True)  # the last norm
    np.testing.assert_allclose(tokens, want / np.sqrt((want**2).mean(-1, keepdims=True) + 1e-6), atol=FLOAT32)


def test_a_masked_number_is_as_if_it_were_not_there(table):
    (value, observed), (params, apply, _) = table, compiled("masked")
    observed[:, 2] = 0
    keep = np.array([0, 1, 3])
    fewer = {k: p[:, keep] if k.startswith("number_") else p for k, p in params["params"].items()}
    want = jax.jit(make("masked").apply)({"params": fewer}, value[:, keep], observed=observed[:, keep])
    np.testing.assert_allclose(apply(value, observed).pooled, want.pooled, atol=FLOAT32)


def test_the_token_of_a_missing_number_is_learnt_where_it_is_missing(table):
    (value, observed), (params, _, gradient) = table, compiled("token")
    observed[:], observed[1, 2] = 1, 0
    by_params, _ = gradient(params, value, observed)
    learnt = np.any(np.asarray(by_params["params"]["number_missing"])[0] != 0, axis=1)
    np.testing.assert_array_equal(learnt, [False, False, True, False])


def test_symiles_encoder_reads_fifty_percentiles_and_indicators():
    module = make_tower("labs", {"name": "mlp", "variant": "symile"}, {"kind": "labs"})
    shapes = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), jnp.zeros((1, 50)))))["params"]
    assert [shapes[f"layer_{i}"]["kernel"].shape for i in range(2)] == [(100, 256), (256, 1024)]
