"""The encoder of lab values: what was not observed does not matter."""

import jax
import jax.numpy as jnp
import numpy as np

from medjax.models import make_tower
from medjax.models.partitioning import unbox

ROWS = jnp.arange(5)


def tower_and_value(rng, **options):
    module = make_tower("labs", {"name": "mlp", "hidden": (8, 6), **options}, {"kind": "labs"})
    observed = (rng.random((5, 4)) < 0.6).astype(np.float32)
    value = {"value": rng.normal(size=(5, 4)).astype(np.float32), "observed": observed}
    return module, value, unbox(module.init(jax.random.key(0), value, ROWS, False))


def test_values_that_were_not_observed_do_not_matter(rng):
    module, value, params = tower_and_value(rng)
    other = {**value, "value": np.where(value["observed"] > 0, value["value"], 1e3).astype(np.float32)}
    pooled = [module.apply(params, v, ROWS, False).pooled for v in (value, other)]
    np.testing.assert_array_equal(*pooled)


def test_missing_and_zero_differ(rng):
    module, _value, params = tower_and_value(rng)
    zero = {"value": np.zeros((5, 4), np.float32), "observed": np.ones((5, 4), np.float32)}
    missing = {**zero, "observed": np.zeros((5, 4), np.float32)}
    pooled = [module.apply(params, v, ROWS, False).pooled for v in (zero, missing)]
    assert np.abs(pooled[0] - pooled[1]).max() > 1e-2


def test_features_have_the_last_width_and_one_token(rng):
    module, value, params = tower_and_value(rng)
    features = module.apply(params, value, ROWS, False)
    assert features.pooled.shape == (5, 6)
    np.testing.assert_array_equal(features.tokens[:, 0], features.pooled)
    assert features.token_mask.all()
