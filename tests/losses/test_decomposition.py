"""Shared and unique halves against InfoNCE and angles in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_check import assert_matches
from losses_limits import assert_limits
from losses_reference import id_rows, info_nce, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError

NAME = "orthogonal_decomposition"


def decomposition(z, scale, present, orthogonality=1.0, **ids):
    half = next(iter(z.values())).shape[1] // 2
    angles = []
    for m, x in z.items():
        shared, unique = x[:, :half], x[:, half:]
        lengths = np.linalg.norm(shared, axis=1) * np.linalg.norm(unique, axis=1)
        angles.append(np.mean((np.sum(shared * unique, axis=1) / lengths)[present[m]] ** 2))
    shared = {m: x[:, :half] for m, x in z.items()}
    return info_nce(shared, scale, present, **ids) + orthogonality * np.mean(angles)


def test_value_and_gradient_equal_the_reference(rng):
    z, present = unit_rows(rng, 8, 4, "abc"), some_present(rng, 8, "abc")
    patient = np.array([1, 1, 2, 2, 2, 0, 0, 3])
    ids = {"patient": patient, "same_patient": "positive"}

    def reference(z, scalars, learnt):
        return decomposition(z, scalars["logit_scale"], present, 0.3, **ids)

    assert_matches(
        NAME,
        {"orthogonality": 0.3, "same_patient": "positive"},
        reference,
        z,
        scalars={"logit_scale": 4.0},
        present=present,
        ids={"patient": id_rows(patient)},
    )


def test_without_the_penalty_it_is_info_nce_of_the_shared_halves(rng):
    z = unit_rows(rng, 8, 6, "ab")
    value = losses.get(NAME, orthogonality=0.0)(z, logit_scale=4.0).mean()
    shared = losses.get("info_nce")({m: x[:, :3] for m, x in z.items()}, logit_scale=4.0).mean()
    np.testing.assert_allclose(value, shared, rtol=1e-6)


def test_the_penalty_sees_angles_and_not_lengths(rng):
    x = jnp.array([[1.0, 0.0, 0.0, 2.0], [1.0, 0.0, 3.0, 0.0], [1.0, 1.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]])
    loss = losses.get(NAME)({"a": x, "b": x}, logit_scale=1.0)
    np.testing.assert_allclose(loss.metrics()[f"{NAME}/orthogonal_a"], (0.0 + 1.0 + 0.5 + 0.0) / 4, rtol=1e-6)


def test_a_modality_absent_everywhere_gives_the_smaller_problem(rng):
    z = unit_rows(rng, 8, 4, "abc")
    present = {m: np.full(8, m != "b") for m in z}
    objective = losses.get(NAME)
    value = objective(z, logit_scale=4.0, present=present).mean()
    np.testing.assert_allclose(value, objective({m: z[m] for m in "ac"}, logit_scale=4.0).mean(), rtol=1e-6)


@pytest.mark.parametrize("name", [NAME, "sepclr"])
def test_score_compares_the_first_halves(rng, name):
    z, candidates = unit_rows(rng, 3, 6, "ab"), unit_rows(rng, 5, 6, "x")["x"]
    score = losses.get(name, modalities=("a", "b")).score({"a": z["a"]}, candidates, "b", logit_scale=2.0)
    np.testing.assert_allclose(score, 2.0 * z["a"][:, :3] @ candidates[:, :3].T, atol=1e-6)


def test_limits(rng):
    assert_limits(NAME, {}, unit_rows(rng, 8, 4, "ab"))


def test_gradient_at_a_part_of_length_zero_is_finite(rng):
    z = {m: jnp.asarray(x).at[:3, 2:].set(0.0) for m, x in unit_rows(rng, 8, 4, "ab").items()}
    gradient = jax.jit(jax.grad(lambda z: losses.get(NAME)(z, logit_scale=4.0).mean()))(z)
    assert all(np.isfinite(g).all() for g in gradient.values())


def test_wrong_inputs_are_named(rng):
    with pytest.raises(UserError, match=f"{NAME} splits.*must be even, got 5"):
        losses.get(NAME)(unit_rows(rng, 4, 5, "ab"), logit_scale=1.0)
    with pytest.raises(UserError, match="at least two"):
        losses.get(NAME, modalities=("a",))
    with pytest.raises(UserError, match="orthogonality must not be negative, got -1"):
        losses.get(NAME, orthogonality=-1.0, modalities=("a", "b"))
