"""SepCLR's terms against kernels of every pair in float64, and what they do to two populations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from losses_check import assert_matches
from losses_limits import assert_limits
from losses_reference import some_present, unit_rows

from medjax import losses
from medjax.errors import UserError

TARGETS = np.array([1, 0, 1, 0, 0, 1, 1, -1])


def kernel(x, y, tau):
    return np.exp(-np.sum((x[:, None] - y[None]) ** 2, axis=-1) / (2 * tau))


def sepclr(z, targets, present, tau=0.5, uniformity=2.0, null=10.0, joint=10.0):
    names, n = sorted(z), len(targets)
    half = next(iter(z.values())).shape[1] // 2
    common, salient = {m: z[m][:, :half] for m in names}, {m: z[m][:, half:] for m in names}
    off = ~np.eye(n, dtype=bool)
    near = {"common": [], "salient": []}
    for k, x in enumerate(names):
        for y in names[k + 1 :]:
            both = present[x] & present[y]
            gap = np.sum((common[x] - common[y]) ** 2, axis=1)
            near["common"].append(np.mean(gap[both]) / (2 * tau))
            gap = np.sum((salient[x] - salient[y]) ** 2, axis=1)
            near["salient"].append(np.mean(gap[both & (targets > 0)]) / (2 * tau))
    wide, nulls, joints = [], [], []
    for m in names:
        here = present[m]
        pairs = off & here[:, None] & here[None]
        k_common, k_salient = kernel(common[m], common[m], tau), kernel(salient[m], salient[m], tau)
        pinned = np.where(targets[:, None] > 0, salient[m], 0.0)
        separate = pairs & (targets > 0)[:, None] & (targets >= 0)[None]
        wide.append(np.log(np.mean(k_common[pairs])) + np.log(np.mean(kernel(salient[m], pinned, tau)[separate])))
        nulls.append(np.mean(np.sum(salient[m] ** 2, axis=1)[here & (targets == 0)]))
        rows = [np.log(np.mean((k_common * k_salient)[i][pairs[i]])) for i in range(n) if pairs[i].any()]
        joints.append(np.mean(rows))
    value = np.mean(near["common"]) + np.mean(near["salient"]) + uniformity * np.mean(wide)
    return value + null * np.mean(nulls) + joint * np.mean(joints)


def test_value_and_gradient_equal_the_reference(rng):
    z, present = unit_rows(rng, 8, 4, "abc"), some_present(rng, 8, "abc")
    options = {"tau": 0.7, "uniformity": 1.5, "null": 3.0, "joint": 2.0}

    def reference(z, scalars, learnt):
        return sepclr(z, TARGETS, present, **options)

    assert_matches("sepclr", options, reference, z, scalars={"logit_scale": 1.0}, present=present, targets=TARGETS)


def test_defaults_are_those_of_the_released_code(rng):
    z = unit_rows(rng, 8, 4, "ab")
    value = losses.get("sepclr")(z, logit_scale=1.0, targets=TARGETS).mean()
    everyone = {m: np.ones(8, bool) for m in z}
    double = {m: x.astype(np.float64) for m, x in z.items()}
    np.testing.assert_allclose(value, sepclr(double, TARGETS, everyone), rtol=1e-5)


def test_descent_empties_the_salient_part_of_the_background_only(rng):
    z = {m: jnp.asarray(x) for m, x in unit_rows(rng, 8, 8, "ab").items()}
    targets = np.arange(8) < 4
    objective = losses.get("sepclr", joint=0.0)
    gradient = jax.jit(jax.grad(lambda z: objective(z, logit_scale=1.0, targets=targets).mean()))
    for _ in range(40):
        z = jax.tree.map(lambda x, g: x - 0.05 * g, z, gradient(z))
    for x in z.values():
        length = np.linalg.norm(x[:, 4:], axis=1)
        assert length[~targets].max() < 0.01
        assert length[targets].min() > 0.5


def two_factors(rng, rows):
    """Two views of samples with a factor of all (4 classes), one of the targets alone (2 classes), and who is one."""
    common, salient, targets = rng.integers(4, size=rows), rng.integers(2, size=rows), rng.random(rows) < 0.5
    x = np.concatenate([np.eye(4)[common], np.where(targets, 2.0 * salient - 1.0, 0.0)[:, None]], axis=1) * 1.5
    views = [(x + 0.3 * rng.normal(size=x.shape)).astype(np.float32) for _ in "ab"]
    return views, salient, targets


def encode(weights, x):
    z = jnp.tanh(x @ weights["in"]) @ weights["out"]
    common, salient = z[:, :4], z[:, 4:]
    return jnp.concatenate([common / jnp.sqrt(jnp.sum(common**2, axis=1, keepdims=True) + 1e-6), salient], axis=1)


def probe_salient(rng, weights, part):
    """Accuracy of a linear probe of the targets' factor; chance is 1/2."""
    views, salient, targets = two_factors(rng, 1000)
    z = np.asarray(encode(weights, views[0]))[:, part]
    fit, test = targets & (np.arange(1000) < 500), targets & (np.arange(1000) >= 500)
    direction = np.linalg.lstsq(z[fit] - z[fit].mean(axis=0), 2.0 * salient[fit] - 1.0)[0]
    answers = (z[test] - z[fit].mean(axis=0)) @ direction > 0
    return np.mean(answers == salient[test])


def test_joint_entropy_keeps_the_salient_factor_out_of_the_common_part(rng):
    def train(joint):
        objective = losses.get("sepclr", joint=joint)
        keys = jax.random.split(jax.random.key(0))
        weights = {"in": jax.random.normal(keys[0], (5, 64)) / 2, "out": jax.random.normal(keys[1], (64, 8)) / 8}
        optimizer = optax.adam(5e-3)

        @jax.jit
        def step(weights, state, views, targets):
            def call(weights):
                z = {m: encode(weights, x) for m, x in zip("ab", views, strict=True)}
                return objective(z, logit_scale=1.0, targets=targets).mean()

            update, state = optimizer.update(jax.grad(call)(weights), state)
            return optax.apply_updates(weights, update), state

        state = optimizer.init(weights)
        for _ in range(400):
            views, _, targets = two_factors(rng, 64)
            weights, state = step(weights, state, views, targets)
        return weights

    common, salient = slice(0, 4), slice(4, 8)
    with_term, without = train(10.0), train(0.0)
    assert probe_salient(rng, with_term, salient) > 0.9
    assert probe_salient(rng, with_term, common) < 0.75
    assert probe_salient(rng, without, common) > 0.9


def test_targets_of_an_unknown_population_enter_common_and_joint_terms_only(rng):
    z = unit_rows(rng, 8, 4, "ab")
    loss = losses.get("sepclr")(z, logit_scale=1.0, targets=np.full(8, -1))
    for name, value in loss.metrics().items():
        assert (value == 0.0) == ("salient" in name or "null" in name), name


def test_a_view_absent_everywhere_gives_the_smaller_problem(rng):
    z = unit_rows(rng, 8, 4, "abc")
    present = {m: np.full(8, m != "b") for m in z}
    objective = losses.get("sepclr")
    value = objective(z, logit_scale=1.0, targets=TARGETS, present=present).mean()
    smaller = objective({m: z[m] for m in "ac"}, logit_scale=1.0, targets=TARGETS).mean()
    np.testing.assert_allclose(value, smaller, rtol=1e-6)


def test_limits(rng):
    assert_limits("sepclr", {}, unit_rows(rng, 8, 4, "ab"), targets=TARGETS)


@pytest.mark.parametrize(
    ("width", "inputs", "named"),
    [
        (4, {}, "needs targets="),
        (5, {"targets": TARGETS}, "must be even, got 5"),
        (4, {"targets": TARGETS[:5]}, r"sepclr's targets must be bool or integer \[8\], got int32\[5\]"),
        (4, {"targets": TARGETS.astype(np.float32)}, "got float32"),
    ],
)
def test_wrong_inputs_are_named(rng, width, inputs, named):
    with pytest.raises(UserError, match=named):
        losses.get("sepclr")(unit_rows(rng, 8, width, "ab"), logit_scale=1.0, **inputs)
