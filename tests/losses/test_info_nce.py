"""InfoNCE against the formula of the paper in float64."""

import jax
import losses_reference as reference
import numpy as np
import pytest
from losses_reference import assert_close, numeric_gradient, some_present, unit_rows

from medjax import losses

SCALE = 14.0
TOLERANCE = 1e-5  # logits of 14 with a float32 rounding error of 6e-8 each, summed over a few dozen pairs


def check_value_and_gradient(z, options, **inputs):
    objective = losses.get("info_nce", **options)

    def call(z, scale):
        return objective(z, logit_scale=scale, **inputs).mean()

    value, (d_z, d_scale) = jax.jit(jax.value_and_grad(call, argnums=(0, 1)))(z, SCALE)

    def oracle(t):
        return reference.info_nce({m: t[m] for m in z}, float(t["scale"]), inputs.get("present"), **options)

    expected = numeric_gradient(oracle, {**z, "scale": np.array(SCALE)})
    assert_close(value, oracle({**{m: x.astype(np.float64) for m, x in z.items()}, "scale": SCALE}), TOLERANCE)
    assert_close(d_scale, expected.pop("scale"), 1e-4)  # a small difference of log-sum-exp and answer
    assert_close(d_z, expected, TOLERANCE)


@pytest.mark.parametrize("modalities", ["ab", "abc", "abcd"])
def test_value_and_gradient_equal_the_reference(rng, modalities):
    check_value_and_gradient(unit_rows(rng, 6, 5, modalities), {})


@pytest.mark.parametrize(
    "options",
    [
        {"pairs": (("c", "a"), ("b", "c"))},
        {"pairs": (("a", "b"), ("a", "c")), "weights": (1.0, 0.25)},
        {"weights": (3.0, 1.0, 0.5)},
        {"reduction": "sum"},
        {"reduction": "sum", "weights": (3.0, 1.0, 0.5)},
    ],
)
def test_pairs_weights_and_reduction_equal_the_reference(rng, options):
    check_value_and_gradient(unit_rows(rng, 6, 5, "abc"), options)


def test_missing_modalities_equal_the_reference(rng):
    check_value_and_gradient(unit_rows(rng, 8, 5, "abc"), {}, present=some_present(rng, 8, "abc"))


def test_pair_that_never_meets_leaves_the_mean_of_the_others(rng):
    z = unit_rows(rng, 6, 5, "abc")
    half = np.arange(6) < 3
    present = {"a": half, "b": ~half, "c": np.ones(6, bool)}
    check_value_and_gradient(z, {}, present=present)


def test_loss_of_one_row_is_zero(rng):
    loss = losses.get("info_nce")(unit_rows(rng, 1, 5, "ab"), logit_scale=SCALE)
    assert loss.mean() == 0.0


def test_equal_embeddings_give_the_logarithm_of_the_batch():
    z = {m: np.ones((8, 4), np.float32) / 2 for m in "ab"}
    loss = losses.get("info_nce")(z, logit_scale=SCALE)
    np.testing.assert_allclose(loss.mean(), np.log(8), rtol=1e-6)


def test_order_of_rows_does_not_matter(rng):
    z, order = unit_rows(rng, 12, 8, "abc"), rng.permutation(12)
    present = some_present(rng, 12, "abc")

    def call(z, present):
        return losses.get("info_nce")(z, logit_scale=SCALE, present=present).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))(z, present)
    shuffled = {m: x[order] for m, x in z.items()}
    value_shuffled, gradient_shuffled = jax.jit(jax.value_and_grad(call))(
        shuffled, {m: p[order] for m, p in present.items()}
    )
    assert_close(value_shuffled, value, 1e-6)
    assert_close(gradient_shuffled, {m: g[order] for m, g in gradient.items()}, 1e-6)


def test_score_is_the_mean_logit_of_present_paired_modalities(rng):
    z = unit_rows(rng, 5, 6, "abc")
    candidates = unit_rows(rng, 7, 6, "x")["x"]
    present = {"a": np.array([1, 1, 0, 0, 1], bool), "b": np.array([1, 0, 1, 0, 1], bool)}
    objective = losses.get("info_nce", modalities=("a", "b", "c"))
    score = objective.score({m: z[m] for m in "ab"}, candidates, "c", logit_scale=2.0, present=present)
    parts = {m: present[m][:, None] * (z[m] @ candidates.T) for m in "ab"}
    count = np.maximum(present["a"] * 1.0 + present["b"], 1)[:, None]
    assert_close(score, 2.0 * (parts["a"] + parts["b"]) / count, 1e-6)
    unpaired = losses.get("info_nce", modalities=("a", "b", "c"), pairs=(("a", "c"), ("a", "b")))
    score = unpaired.score({m: z[m] for m in "ab"}, candidates, "c", logit_scale=2.0, present=present)
    assert_close(score, 2.0 * parts["a"], 1e-6)
