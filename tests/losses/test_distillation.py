"""Distillation of similarities against softmaxes of whole matrices in float64."""

import jax
import numpy as np
import pytest
from losses_check import assert_matches
from losses_limits import assert_limits
from losses_reference import id_rows, relation, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError


def softmax(s, allowed):
    e = np.where(allowed, np.exp(np.where(allowed, s - s.max(), 0.0)), 0.0)
    return e / np.maximum(e.sum(axis=1, keepdims=True), 1e-300)


def distillation(z, t, scale, present, temperature=0.07, intra=1.0, inter=1.0, diagonal=False, **ids):
    """z: the students. present: of students and the teacher "t"."""
    n = len(t)
    keep, _ = relation(n, **ids)
    kinds = {"intra": [], "inter": []}
    for x in sorted(z):
        for y in sorted(z):
            allowed = keep & (present[x] & present["t"])[:, None] & (present[y] & present["t"])[None]
            if x == y and not diagonal:
                allowed &= ~np.eye(n, dtype=bool)
            p, q = softmax(t @ t.T / temperature, allowed), softmax(scale * z[x] @ z[y].T, allowed)
            rows = allowed.any(axis=1)
            divergence = np.where(allowed, p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-300))), 0.0)
            kinds["intra" if x == y else "inter"].append(np.mean(divergence.sum(axis=1)[rows]))
    return intra * np.mean(kinds["intra"]) + inter * np.mean(kinds["inter"])


@pytest.mark.parametrize(("diagonal", "policy"), [(False, "mask"), (True, "ignore")])
def test_value_and_gradient_equal_the_reference_with_a_constant_teacher(rng, diagonal, policy):
    z, present = unit_rows(rng, 8, 3, "abt"), some_present(rng, 8, "abt", share=0.9)
    patient = np.array([1, 1, 2, 2, 2, 0, 0, 3])
    options = {"temperature": 0.2, "intra": 0.5, "inter": 2.0, "diagonal": diagonal}
    teacher = z["t"].astype(np.float64)

    def reference(z, scalars, learnt):
        students = {m: z[m] for m in "ab"}
        ids = {"patient": patient, "same_patient": policy}
        return distillation(students, teacher, scalars["logit_scale"], present, **options, **ids)

    assert_matches(
        "similarity_distillation",
        {"teacher": "t", "same_patient": policy, **options},
        reference,
        z,
        scalars={"logit_scale": 3.0},
        present=present,
        ids={"patient": id_rows(patient)},
    )


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_student_that_is_the_teacher_has_learnt_all(rng, diagonal):
    one = unit_rows(rng, 8, 4, "x")["x"]
    objective = losses.get("similarity_distillation", teacher="t", temperature=0.2, diagonal=diagonal, inter=0.0)

    def call(z):
        return objective(z, logit_scale=5.0).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))({"a": one, "b": -one, "t": one})
    # Similarities within a modality do not see a common rotation, here a reflection.
    np.testing.assert_allclose(value, 0.0, atol=1e-5)
    for g in gradient.values():
        np.testing.assert_allclose(g, 0.0, atol=1e-5)


def test_the_teacher_gets_no_gradient_and_the_student_learns_from_it(rng):
    z = unit_rows(rng, 8, 4, "at")
    objective = losses.get("similarity_distillation", teacher="t", temperature=0.2)
    step = jax.jit(jax.value_and_grad(lambda z: objective(z, logit_scale=5.0).mean()))
    first, gradient = step(z)
    assert not np.any(gradient["t"])
    for _ in range(30):
        value, gradient = step(z)
        z = {"a": z["a"] - 0.3 * gradient["a"], "t": z["t"]}
    assert 0 <= value < first / 4


def test_a_student_absent_everywhere_gives_the_smaller_problem(rng):
    z = unit_rows(rng, 8, 4, "abct")
    present = {m: np.full(8, m != "b") for m in z}
    objective = losses.get("similarity_distillation", teacher="t")
    value = objective(z, logit_scale=5.0, present=present).mean()
    smaller = objective({m: z[m] for m in "act"}, logit_scale=5.0).mean()
    np.testing.assert_allclose(value, smaller, rtol=1e-6)


def test_limits(rng):
    assert_limits("similarity_distillation", {"teacher": "t", "temperature": 0.5}, unit_rows(rng, 8, 4, "abt"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "requires teacher="),
        ({"teacher": "txet"}, "'txet'.*did you mean 'text'"),
        ({"teacher": "text", "temperature": 0.0}, "temperature must be positive, got 0"),
        ({"teacher": "text", "modalities": ("text",)}, "at least one student"),
        ({"teacher": "text", "same_text": "positive"}, "no second right answers"),
    ],
)
def test_wrong_options_are_named(rng, options, named):
    x = unit_rows(rng, 4, 4, "x")["x"]
    with pytest.raises(UserError, match=named):
        losses.get("similarity_distillation", **options)({"image": x, "text": x}, logit_scale=1.0)
