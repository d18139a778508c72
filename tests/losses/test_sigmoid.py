"""SigLIP's pairwise questions against the formula."""

import jax
import jax.numpy as jnp
import numpy as np
from losses_check import assert_matches
from losses_reference import id_rows, pair, some_present, unit_rows

from medjax import losses


def sigmoid(z, scalars, present=None, **ids):
    s, allowed, answers = pair(z, scalars["logit_scale"], "a", "b", present, **ids)
    signs = np.where(answers, 1.0, -1.0)
    total = np.where(allowed, np.logaddexp(0.0, -signs * (s + scalars["logit_bias"])), 0.0).sum()
    rows = np.sum(np.diag(allowed))
    return total / rows if rows else 0.0


def test_equals_the_formula_with_gaps_and_several_answers(rng):
    z, present = unit_rows(rng, 16, 3, "ab"), some_present(rng, 16, "ab")
    patient = rng.integers(0, 6, 16)

    def reference(z, scalars, _):
        return sigmoid(z, scalars, present, patient=patient, same_patient="positive")

    assert_matches(
        "sigmoid",
        {"same_patient": "positive"},
        reference,
        z,
        scalars={"logit_scale": 4.0, "logit_bias": -2.0},
        present=present,
        ids={"patient": id_rows(patient)},
    )


def test_one_example_is_one_question(rng):
    z = unit_rows(rng, 1, 4, "ab")
    loss = losses.get("sigmoid")(z, logit_scale=10.0, logit_bias=-10.0).mean()
    np.testing.assert_allclose(loss, np.logaddexp(0.0, 10.0 - 10.0 * np.sum(z["a"] * z["b"])), rtol=1e-5)


def test_nothing_present_gives_zero_and_no_gradient(rng):
    z = unit_rows(rng, 4, 3, "ab")
    absent = dict.fromkeys("ab", np.zeros(4, bool))

    def call(z, bias):
        return losses.get("sigmoid")(z, logit_scale=10.0, logit_bias=bias, present=absent).mean()

    value, gradient = jax.value_and_grad(call, argnums=(0, 1))(z, jnp.float32(-10.0))
    assert value == 0 and all(not np.any(g) for g in jax.tree.leaves(gradient))
