"""Alignment and uniformity against distances of every pair in float64."""

import jax
import numpy as np
import pytest
from losses_check import assert_matches
from losses_limits import assert_limits
from losses_reference import assert_close, id_rows, info_nce, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError
from medjax.losses import Loss

SCALARS = {"logit_scale": 1.0}


def log_mean(x, y, keep, t=2.0):
    squares = np.sum((x[:, None] - y[None]) ** 2, axis=-1)
    return np.log(np.mean(np.exp(-t * squares)[keep]))


def others(n, patient=None):
    keep = ~np.eye(n, dtype=bool)
    return keep if patient is None else keep & ((patient[:, None] != patient[None]) | (patient == 0)[:, None])


def mean_over_pairs(z, term):
    names = sorted(z)
    return np.mean([term(x, y) for i, x in enumerate(names) for y in names[i + 1 :]])


def test_alignment_equals_the_reference(rng):
    z, present = unit_rows(rng, 8, 3, "abc"), some_present(rng, 8, "abc")

    def reference(z, scalars, learnt):
        def term(x, y):
            both = present[x] & present[y]
            return np.mean(np.sum((z[x] - z[y]) ** 2, axis=1)[both])

        return mean_over_pairs(z, term)

    assert_matches("alignment", {}, reference, z, scalars=SCALARS, present=present)


def test_uniformity_equals_the_reference(rng):
    z, present = unit_rows(rng, 16, 3, "ab"), some_present(rng, 16, "ab")
    patient = np.array([1, 1, 2, 3, 3, 3, 0, 0] * 2)

    def reference(z, scalars, learnt):
        keep = others(16, patient)
        return np.mean([log_mean(x, x, keep & present[m][:, None] & present[m]) for m, x in z.items()])

    ids = {"patient": id_rows(patient)}
    assert_matches("uniformity", {"same_patient": "mask"}, reference, z, scalars=SCALARS, present=present, ids=ids)


def test_cross_uniformity_of_any_vectors_equals_the_reference(rng):
    z = {m: rng.uniform(0.5, 1.2) * x for m, x in unit_rows(rng, 8, 3, "abc").items()}
    present = some_present(rng, 8, "abc")

    def reference(z, scalars, learnt):
        keep = others(8)
        return mean_over_pairs(
            z, lambda x, y: log_mean(z[x], z[y], keep & present[x][:, None] & present[y][None], t=1.5)
        )

    assert_matches("cross_uniformity", {"t": 1.5}, reference, z, scalars=SCALARS, present=present)


@pytest.mark.parametrize("cross", [False, True])
def test_cua_and_cuaxu_are_sums_of_objectives(rng, cross):
    z = unit_rows(rng, 8, 4, "ab")
    parts = {"clip": (1.0, losses.get("info_nce")(z, logit_scale=100.0))}
    for name in ["uniformity", "alignment", "cross_uniformity"][: 3 if cross else 2]:
        parts[name] = (1.0, losses.get(name)(z, logit_scale=1.0))
    a, b = (z[m].astype(np.float64) for m in "ab")
    upper = np.triu(np.ones((8, 8), bool), 1)
    expected = info_nce({"a": a, "b": b}, 100.0) + 2 - 2 * np.mean(np.sum(a * b, axis=1))
    expected += 0.5 * log_mean(a, a, upper) + 0.5 * log_mean(b, b, upper)
    expected += log_mean(a, b, others(8)) if cross else 0.0
    loss = Loss.sum(parts)
    assert_close(loss.mean(), expected, 1e-5)
    assert set(loss.metrics()) >= set(parts)


def test_uniformity_is_lowest_for_vectors_that_are_spread(rng):
    corners = np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32)
    value, gradient = jax.value_and_grad(lambda z: losses.get("uniformity")({"a": z}, logit_scale=1.0).mean())(corners)
    assert value < losses.get("uniformity")(unit_rows(rng, 8, 4, "a"), logit_scale=1.0).mean()
    # By symmetry the gradient of each corner points along it, where a unit vector cannot move.
    along = np.sum(gradient * corners, axis=1, keepdims=True) * corners
    np.testing.assert_allclose(gradient, along, atol=1e-6)


def test_pairs_of_one_patient_are_not_pushed_apart_when_they_are_answers(rng):
    z, ids = unit_rows(rng, 8, 4, "ab"), {"patient": id_rows([1, 1, 2, 2, 3, 3, 4, 4])}
    for name in ("uniformity", "cross_uniformity"):
        masked, positive = (
            losses.get(name, same_patient=policy)(z, logit_scale=1.0, ids=ids).mean() for policy in ("mask", "positive")
        )
        np.testing.assert_allclose(masked, positive, rtol=1e-6)
    with pytest.raises(UserError, match="alignment has no second right answers"):
        losses.get("alignment", same_patient="positive")(z, logit_scale=1.0, ids=ids)


@pytest.mark.parametrize("name", ["alignment", "uniformity", "cross_uniformity"])
def test_limits(rng, name):
    assert_limits(name, {}, unit_rows(rng, 8, 4, "ab"))


@pytest.mark.parametrize("name", ["uniformity", "cross_uniformity"])
def test_a_width_that_is_not_positive_is_refused(rng, name):
    with pytest.raises(UserError, match=f"{name}'s t must be positive, got 0"):
        losses.get(name, t=0.0)(unit_rows(rng, 4, 4, "ab"), logit_scale=1.0)
