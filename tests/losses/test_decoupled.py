"""DCL and DHN-NCE against their formulas, and DHN-NCE's sign against that of its released code."""

import jax
import numpy as np
import pytest
from losses_check import assert_matches
from losses_reference import id_rows, pair, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError


def directions(z, scale, present=None, **ids):
    """`(S, negatives, answers)` of both directions, rows without an answer or a negative left out."""
    s, allowed, answers = pair(z, scale, "a", "b", present, **ids)
    for table in ((s, allowed & ~answers, answers), (s.T, allowed.T & ~answers.T, answers.T)):
        keep = table[1].any(1) & table[2].any(1)
        yield [x[keep] for x in table]


def log_sum(s, some):
    return np.log(np.sum(np.where(some, np.exp(s), 0.0), axis=1))


def answer(s, answers):
    return np.sum(np.where(answers, s, 0.0), axis=1) / answers.sum(1)


def decoupled(z, scale, **batch):
    tables = directions(z, scale, **batch)
    return np.mean([np.mean(log_sum(s, negatives) - answer(s, answers)) for s, negatives, answers in tables])


def dhn_nce(z, scale, betas, alpha=0.0, **batch):
    total = 0.0
    for beta, (s, negatives, answers) in zip(betas, directions(z, scale, **batch), strict=True):
        weights = np.where(negatives, np.exp(beta * s), 0.0)
        weights *= negatives.sum(1, keepdims=True) / weights.sum(1, keepdims=True)
        hard = np.sum(weights * np.exp(s), axis=1) + alpha * np.exp(answer(s, answers))
        total += np.mean(np.log(hard) - answer(s, answers))
    return total


def released(z, scale, betas):
    total, n = 0.0, len(z["a"])
    for beta, (s, negatives, _) in zip(betas, directions(z, scale), strict=True):
        off = np.where(negatives, s, 0.0)
        total += -np.trace(s) / n**2 + (1 + beta) * off.sum() / n**2 + np.log(n - 1)
        total -= np.mean(np.log(1 + np.sum(np.where(negatives, np.exp(s), 0.0), axis=1)))
    return total


def test_decoupled_equals_the_formula_with_gaps_and_masked_patients(rng):
    z, present, patient = unit_rows(rng, 16, 3, "ab"), some_present(rng, 16, "ab"), rng.integers(0, 6, 16)
    ids = {"patient": patient, "same_patient": "mask"}
    assert_matches(
        "decoupled",
        {"same_patient": "mask"},
        lambda z, s, _: decoupled(z, s["logit_scale"], present=present, **ids),
        z,
        scalars={"logit_scale": 5.0},
        present=present,
        ids={"patient": id_rows(patient)},
    )


def test_dhn_nce_equals_the_published_formula(rng):
    z, present = unit_rows(rng, 16, 3, "ab"), some_present(rng, 16, "ab")
    assert_matches(
        "dhn_nce",
        {"beta": (0.15, 0.4), "alpha": 0.5},
        lambda z, s, _: dhn_nce(z, s["logit_scale"], (0.15, 0.4), 0.5, present=present),
        z,
        scalars={"logit_scale": 3.0},
        present=present,
    )


def test_dhn_nce_equals_the_released_code(rng):
    z = unit_rows(rng, 16, 3, "ab")
    assert_matches(
        "dhn_nce",
        {"beta": (0.15, 0.4), "variant": "released"},
        lambda z, s, _: released(z, s["logit_scale"], (0.15, 0.4)),
        z,
        scalars={"logit_scale": 3.0},
        places=("ring",),
    )


def test_dhn_nce_without_hardness_is_decoupled_summed(rng):
    z = unit_rows(rng, 8, 4, "ab")
    plain = losses.get("decoupled", reduction="sum")(z, logit_scale=5.0).mean()
    hard = losses.get("dhn_nce", beta=(0.0, 0.0))(z, logit_scale=5.0).mean()
    np.testing.assert_allclose(hard, 2 * plain, rtol=1e-6)


def test_the_published_form_repels_a_hard_negative_and_the_released_one_attracts_it():
    """Row 0 of b is almost row 1 of a: moving it along a_1 must cost more in the published form."""
    angle = np.deg2rad([0.0, 90.0, 180.0, 270.0])
    a = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    b = a.copy()
    b[0] = [np.cos(np.deg2rad(80.0)), np.sin(np.deg2rad(80.0))]

    def pull(variant, scale=1 / 0.1):
        def call(b):
            return losses.get("dhn_nce", variant=variant)({"a": a, "b": b}, logit_scale=scale).mean()

        return jax.grad(call)(b)[0] @ a[1]

    assert pull("paper") > 0 > pull("released")


@pytest.mark.parametrize("name", ["decoupled", "dhn_nce"])
def test_one_example_has_no_negatives_and_counts_nothing(rng, name):
    z = unit_rows(rng, 1, 4, "ab")
    value, gradient = jax.value_and_grad(lambda z: losses.get(name)(z, logit_scale=5.0).mean())(z)
    assert value == 0 and not np.any(gradient["a"])


@pytest.mark.parametrize("options", [{"beta": (-1.0, 0.1)}, {"variant": "released", "alpha": 1.0}, {"variant": "x"}])
def test_wrong_options_are_errors(options):
    with pytest.raises(UserError, match="dhn_nce"):
        losses.get("dhn_nce", modalities=("a", "b"), **options)
