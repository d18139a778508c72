"""The triplet loss against every triplet of the batch in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_check import assert_matches
from losses_limits import assert_limits
from losses_reference import assert_close, id_rows, relation, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError


def triplet(z, scale, present, margin=0.2, negatives="hardest", **ids):
    names, n = sorted(z), len(next(iter(z.values())))
    keep, answers = relation(n, **ids)
    means = []
    for k, x in enumerate(names):
        for y in names[k + 1 :]:
            for a, b in ((x, y), (y, x)):
                s = scale * z[a] @ z[b].T
                values = []
                for i in range(n):
                    right = answers[i] & present[b] & present[a][i]
                    wrong = keep[i] & ~answers[i] & present[b] & present[a][i]
                    if right.any():
                        hinges = np.maximum(0.0, margin + s[i][wrong] - s[i][right].mean())
                        whole = hinges.max if negatives == "hardest" else hinges.mean
                        values.append(whole() if wrong.any() else 0.0)
                means.append(np.mean(values))
    return np.mean(means)


@pytest.mark.parametrize(("negatives", "policy"), [("hardest", "mask"), ("mean", "positive")])
def test_value_and_gradient_equal_the_reference(rng, negatives, policy):
    z, present = unit_rows(rng, 8, 3, "abc"), some_present(rng, 8, "abc")
    patient = np.array([1, 1, 2, 2, 2, 0, 0, 3])

    def reference(z, scalars, learnt):
        ids = {"patient": patient, "same_patient": policy}
        return triplet(z, scalars["logit_scale"], present, 0.3, negatives, **ids)

    assert_matches(
        "triplet",
        {"margin": 0.3, "negatives": negatives, "same_patient": policy},
        reference,
        z,
        scalars={"logit_scale": 1.5},
        present=present,
        ids={"patient": id_rows(patient)},
    )


def test_the_hardest_negative_alone_gets_a_gradient():
    anchor = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    answer = jnp.array([[0.9, 0.1], [0.8, 0.6], [0.1, -0.9]])  # row 1 is the hardest for row 0
    objective = losses.get("triplet")

    def one_row(answer):
        present = {"a": jnp.array([True, False, False]), "b": jnp.ones(3, bool)}
        return objective({"a": anchor, "b": answer}, logit_scale=1.0, present=present).mean()

    # Only row 0 has both modalities: one triplet from a to b, none from b to a.
    gradient = jax.jit(jax.grad(one_row))(answer)
    assert_close(gradient, np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]), 1e-6)


def test_a_batch_apart_by_the_margin_has_no_loss():
    z = {m: jnp.eye(4) for m in "ab"}
    for negatives in ("hardest", "mean"):
        assert losses.get("triplet", margin=0.9, negatives=negatives)(z, logit_scale=1.0).mean() == 0.0
        loss = losses.get("triplet", margin=1.25, negatives=negatives)(z, logit_scale=1.0).mean()
        np.testing.assert_allclose(loss, 0.25, rtol=1e-6)


def test_the_similarity_matrix_is_never_stored(rng):
    z, matrix = unit_rows(rng, 256, 4, "ab"), 4 * 256 * 256

    def temporary_bytes(impl):
        objective = losses.get("triplet", impl=impl, block=16)
        step = jax.jit(jax.grad(lambda z: objective(z, logit_scale=1.0).mean()))
        return step.lower(z).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes("gather") < matrix < temporary_bytes("dense")


@pytest.mark.parametrize("negatives", ["hardest", "mean"])
def test_limits(rng, negatives):
    assert_limits("triplet", {"negatives": negatives}, unit_rows(rng, 8, 4, "ab"), logit_scale=1.0)


def test_wrong_options_are_named(rng):
    z = unit_rows(rng, 4, 4, "ab")
    with pytest.raises(UserError, match="did you mean 'hardest'"):
        losses.get("triplet", negatives="hard")(z, logit_scale=1.0)
    with pytest.raises(UserError, match="margin must not be negative, got -1"):
        losses.get("triplet", margin=-1.0)(z, logit_scale=1.0)
