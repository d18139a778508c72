"""Conditional transport between patches and labels against its formula in float64, and its navigators."""

import jax.numpy as jnp
import numpy as np
import pytest
from losses_check import assert_matches
from losses_reference import unit_rows
from token_batches import (
    check_edges,
    check_half_precision,
    present_samples,
    token_batch,
    value_and_gradient,
)

from medjax.losses import Tokens
from medjax.losses.patch_transport import navigators, shares

SCALE = {"logit_scale": 4.0}


def patch_transport(z, scale, present) -> float:
    """Expected cost, forwards and backwards, sample by sample."""
    here = present_samples(z, present)
    costs = []
    for i in np.flatnonzero(here["image"] & here["text"]):
        (x, p), (y, q) = ((t.tokens[i][t.mask[i]], _share(t, i)) for t in (z["image"], z["text"]))
        s = x @ y.T
        forward, backward = q[None] * np.exp(scale * s), p[:, None] * np.exp(scale * s)
        forward, backward = forward / forward.sum(1, keepdims=True), backward / backward.sum(0, keepdims=True)
        costs.append(p @ (forward * (1 - s)).sum(1) + q @ (backward * (1 - s)).sum(0))
    return float(np.mean(costs)) if costs else 0.0


def _share(t, i):
    weight = np.ones(t.mask.shape[1]) if t.weight is None else t.weight[i]
    return weight[t.mask[i]] / weight[t.mask[i]].sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_equal_the_formula(rng, weighted):
    weight = {"weight": rng.uniform(0.2, 1.0, (8, 2)).astype(np.float32)} if weighted else {}
    z, present = token_batch(rng, **weight)

    def oracle(z, scalars, _):
        return patch_transport(z, scalars["logit_scale"], present)

    assert_matches("patch_transport", {}, oracle, z, scalars=SCALE, present=present)


def test_navigators_add_up_to_one_whatever_the_padding(rng):
    z = unit_rows(rng, 5, 4, "xy")
    p, q = (
        shares(Tokens(z[m][None], np.array([mask])))
        for m, mask in (("x", [True] * 5), ("y", [True, False] * 2 + [True]))
    )
    to_y, to_x = navigators(jnp.float32(7.0), z["x"], z["y"], p[0], q[0])
    np.testing.assert_allclose(to_y.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(to_x.sum(0), 1.0, atol=1e-6)
    assert not to_y[:, 1].any()


def test_equal_sets_cost_nothing_at_a_low_temperature(rng):
    x = np.eye(5, dtype=np.float32)[None].repeat(3, 0)  # a large distance from one patch to the next
    order = rng.permutation(5)
    z = {"image": Tokens(x, np.ones((3, 5), bool)), "text": Tokens(x[:, order], np.ones((3, 5), bool))}
    values = [value_and_gradient("patch_transport", z, scale) for scale in (1.0, 10.0, 1000.0)]
    costs = [value for value, _ in values]
    assert costs[0] > costs[1] > costs[2]
    assert abs(costs[2]) < 1e-6
    assert all(np.isfinite(g.tokens).all() for _, gradient in values for g in gradient.values())


def test_a_sample_does_not_depend_on_its_batch(rng):
    z, _ = token_batch(rng, masked=False)
    _, together = value_and_gradient("patch_transport", z, 4.0)
    alone = {m: Tokens(x.tokens[:1], x.mask[:1]) for m, x in z.items()}
    _, gradient = value_and_gradient("patch_transport", alone, 4.0)
    np.testing.assert_allclose(8 * together["image"].tokens[:1], gradient["image"].tokens, atol=1e-6)


def test_padding_order_absence_and_extremes(rng):
    check_edges("patch_transport", *token_batch(rng), rng)


def test_accepts_half_precision(rng):
    z, present = token_batch(rng)
    check_half_precision("patch_transport", z, present=present)
