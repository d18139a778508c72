"""MV-InfoNCE and MV-DHEL against sums over every pair of views in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_check import assert_matches
from losses_limits import assert_limits
from losses_reference import id_rows, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError

SCALARS = {"logit_scale": 4.0}


def kept(n, patient, policy):
    """Pairs that are no negatives under "mask", and that are answers beside the own row under "positive"."""
    same = np.zeros((n, n), bool)
    if patient is not None:
        same = (patient[:, None] == patient[None]) & (patient != 0)[:, None]
    masked = same & ~np.eye(n, dtype=bool) if policy == "mask" else np.zeros_like(same)
    return ~masked, np.eye(n, dtype=bool) | (same if policy == "positive" else False)


def mv_infonce(z, scale, present, patient=None, policy="ignore"):
    names, n = sorted(z), len(next(iter(z.values())))
    keep, answer = kept(n, patient, policy)
    values = []
    for i in range(n):
        numerator, denominator = 0.0, 0.0
        for view in names:
            for other in names:
                for j in range(n):
                    itself = (view, i) == (other, j)
                    if itself or not (present[view][i] and present[other][j] and keep[i, j]):
                        continue
                    e = np.exp(scale * z[view][i] @ z[other][j])
                    denominator += e
                    numerator += e if answer[i, j] else 0.0
        if numerator:
            values.append(-np.log(numerator / denominator))
    return np.mean(values)


def mv_dhel(z, scale, present, patient=None):
    names, n = sorted(z), len(next(iter(z.values())))
    keep, _ = kept(n, patient, "mask")
    values = []
    for i in range(n):
        pairs = [(x, y) for k, x in enumerate(names) for y in names[k + 1 :] if present[x][i] and present[y][i]]
        if not pairs:
            continue
        numerator = sum(np.exp(scale * z[x][i] @ z[y][i]) for x, y in pairs)
        denominator = 1.0
        for m in names:
            negatives = [j for j in range(n) if j != i and present[m][i] and present[m][j] and keep[i, j]]
            if negatives:
                denominator *= sum(np.exp(scale * z[m][i] @ z[m][j]) for j in negatives)
        values.append(-np.log(numerator / denominator))
    return np.mean(values)


@pytest.mark.parametrize("policy", ["mask", "positive"])
def test_mv_infonce_equals_the_reference(rng, policy):
    z, present = unit_rows(rng, 8, 2, "abc"), some_present(rng, 8, "abc")
    patient = np.array([1, 1, 2, 2, 2, 0, 0, 3])

    def reference(z, scalars, learnt):
        return mv_infonce(z, scalars["logit_scale"], present, patient, policy)

    ids = {"patient": id_rows(patient)}
    options = {"same_patient": policy}
    assert_matches("mv_infonce", options, reference, z, scalars=SCALARS, present=present, ids=ids)


def test_mv_dhel_equals_the_reference(rng):
    z, present = unit_rows(rng, 8, 2, "abc"), some_present(rng, 8, "abc")
    patient = np.array([1, 1, 2, 2, 2, 0, 0, 3])

    def reference(z, scalars, learnt):
        return mv_dhel(z, scalars["logit_scale"], present, patient)

    ids = {"patient": id_rows(patient)}
    assert_matches("mv_dhel", {"same_patient": "mask"}, reference, z, scalars=SCALARS, present=present, ids=ids)


def test_mv_infonce_of_two_views_joins_the_denominators_and_is_not_nt_xent(rng):
    z, scale = unit_rows(rng, 8, 4, "ab"), 10.0
    both = np.concatenate([z["a"], z["b"]]).astype(np.float64)
    similarity = np.exp(scale * both @ both.T)
    np.fill_diagonal(similarity, 0.0)
    z_1, z_2 = similarity.sum(axis=1).reshape(2, 8)
    answer = scale * np.sum(both[:8] * both[8:], axis=1)
    value = losses.get("mv_infonce")(z, logit_scale=scale).mean()
    np.testing.assert_allclose(value, np.mean(np.log(z_1 + z_2) - np.log(2) - answer), rtol=1e-5)
    nt_xent = np.mean(0.5 * np.log(z_1) + 0.5 * np.log(z_2) - answer)
    assert value > nt_xent + 1e-3  # the mean of logarithms is below the logarithm of the mean


def test_mv_dhel_of_two_views_is_the_sum_of_uniformities_less_the_alignment(rng):
    z = unit_rows(rng, 8, 4, "ab")
    value = losses.get("mv_dhel")(z, logit_scale=4.0).mean()
    spread = 0.0
    for x in z.values():
        s = 4.0 * x.astype(np.float64) @ x.T
        np.fill_diagonal(s, -np.inf)
        spread += np.mean(np.log(np.exp(s).sum(axis=1)))
    np.testing.assert_allclose(value, spread - 4.0 * np.mean(np.sum(z["a"] * z["b"], axis=1)), rtol=1e-5)


def test_mv_dhel_is_exact_where_the_product_of_sums_overflows():
    rows, scale = 4096, 1 / 0.07
    assert (rows * math.exp(scale)) ** 4 > float(np.finfo(np.float32).max)
    z = {m: jnp.tile(jnp.array([[1.0, 0.0]], jnp.float32), (rows, 1)) for m in "abcd"}
    objective = losses.get("mv_dhel")
    value, gradient = jax.jit(jax.value_and_grad(lambda z: objective(z, logit_scale=scale).mean()))(z)
    np.testing.assert_allclose(value, 4 * math.log(rows - 1) + 3 * scale - math.log(6), rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradient.values())


@pytest.mark.parametrize(("name", "default"), [("mv_infonce", True), ("mv_dhel", False)])
def test_counting_pairs_once_or_twice_is_a_constant(rng, name, default):
    z = unit_rows(rng, 8, 4, "abc")

    def run(**options):
        objective = losses.get(name, **options)
        return jax.jit(jax.value_and_grad(lambda z: objective(z, logit_scale=4.0).mean()))(z)

    once, once_gradient = run(ordered_pairs=False)
    twice, twice_gradient = run(ordered_pairs=True)
    np.testing.assert_allclose(once - twice, np.log(2), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, once_gradient, twice_gradient)
    assert run()[0] == (twice if default else once)


@pytest.mark.parametrize("name", ["mv_infonce", "mv_dhel"])
def test_a_view_absent_everywhere_gives_the_smaller_problem(rng, name):
    z = unit_rows(rng, 8, 4, "abc")
    objective = losses.get(name)
    present = {m: np.full(8, m != "b") for m in z}
    value = objective(z, logit_scale=4.0, present=present).mean()
    np.testing.assert_allclose(value, objective({m: z[m] for m in "ac"}, logit_scale=4.0).mean(), rtol=1e-6)


@pytest.mark.parametrize("name", ["mv_infonce", "mv_dhel"])
def test_limits(rng, name):
    assert_limits(name, {}, unit_rows(rng, 8, 4, "abc"))


def test_a_single_view_and_answers_without_meaning_are_refused(rng):
    z = unit_rows(rng, 4, 4, "ab")
    for name in ("mv_infonce", "mv_dhel"):
        with pytest.raises(UserError, match=f"{name} contrasts views"):
            losses.get(name, modalities=("a",))
    with pytest.raises(UserError, match="mv_dhel has no second right answers"):
        losses.get("mv_dhel", same_patient="positive")(z, logit_scale=1.0)
