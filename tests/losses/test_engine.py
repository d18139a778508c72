"""The engine under a user's own tile function: every statistic, on any number of devices, as one stored matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_reference import assert_close, id_rows, relation, some_present, unit_rows

from medjax.losses import Plan, reduce_pairs
from medjax.losses.relations import Relation
from medjax.losses.statistics import STATISTICS

ROWS, WIDTH = 16, 3


def tile(theta, queries, keys):
    """A similarity that no objective of the library has: `-scale * sum_e |x_e - y_e|^1.5`, smoothed."""
    gap = queries["x"][:, None] - keys["y"][None]
    return -theta["scale"] * jnp.sum((gap * gap + 0.1) ** 0.75, axis=-1)


def stored(x, y, scale, allowed, answers, weights):
    """A number made of all statistics of rows and columns, from the whole matrix."""
    gap = x[:, None] - y[None]
    s = -scale * jnp.sum((gap * gap + 0.1) ** 0.75, axis=-1)
    positive = jnp.where(answers, 1.0, 0.0)
    exps = jnp.where(allowed, jnp.exp(s), 0.0)
    softplus = jnp.where(allowed, jax.nn.softplus(jnp.where(answers, -s, s)), 0.0)

    def log(total):
        return jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1.0)), 0.0)

    values = []
    for axis in (1, 0):
        values += [
            log(exps.sum(axis)),
            log((positive * exps).sum(axis)),
            (positive * s).sum(axis),
            jnp.where(allowed, s, 0.0).sum(axis),
            softplus.sum(axis),
        ]
    return sum(jnp.sum(w * v) for w, v in zip(weights, values, strict=True))


def batch(masked):
    """Arrays of one problem; some rows absent and some patients repeated with `masked`."""
    rng = np.random.default_rng(3)
    z = unit_rows(rng, ROWS, WIDTH, "xy")
    present = some_present(rng, ROWS, "xy") if masked else dict.fromkeys("xy", np.ones(ROWS, bool))
    patient = rng.integers(0, 6, ROWS) if masked else np.zeros(ROWS, int)
    weights = rng.normal(size=(10, ROWS)).astype(np.float32)
    return z, present, patient, weights


@functools.cache
def expected(masked):
    z, present, patient, weights = batch(masked)
    _, answers = relation(ROWS, patient=patient, same_patient="positive")
    allowed = present["x"][:, None] & present["y"][None]
    call = functools.partial(stored, allowed=allowed, answers=allowed & answers, weights=weights)
    return jax.jit(jax.value_and_grad(call, argnums=(0, 1, 2)))(z["x"], z["y"], jnp.float32(2.0))


@pytest.mark.parametrize(
    ("impl", "block", "devices", "masked"),
    [
        *[("dense", 4, 1, masked) for masked in (False, True)],
        *[(impl, 3, devices, True) for impl in ("gather", "ring") for devices in (1, 2, 8)],
        *[(impl, block, 2, False) for impl, block in (("gather", 16), ("ring", 3), ("ring", 2))],
        ("dense", 4, 8, True),
    ],
)
def test_every_statistic_equals_the_stored_matrix(impl, block, devices, masked):
    z, present, patient, weights = batch(masked)
    policy = Relation(same_patient="positive")
    mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(jax.P("data"), jax.P()), out_specs=jax.P())
    def total(arrays, scale):
        x, y, here, ids, weights = arrays
        meta = [policy.describe(here[m], {"patient": ids}, "data") for m in "xy"]
        plan = Plan(tile, policy, impl=impl, block=block, axis_name="data", wanted=STATISTICS)
        both = reduce_pairs(plan, {"scale": scale}, {"x": x}, {"y": y}, *meta)
        values = [getattr(stats, name) for stats in both for name in STATISTICS]
        return jax.lax.psum(sum(jnp.sum(w * v) for w, v in zip(weights.T, values, strict=True)), "data")

    def call(x, y, scale):
        return total((x, y, present, id_rows(patient), weights.T), scale)

    actual = jax.jit(jax.value_and_grad(call, argnums=(0, 1, 2)))(z["x"], z["y"], jnp.float32(2.0))
    assert_close(actual, expected(masked), 2e-5)
