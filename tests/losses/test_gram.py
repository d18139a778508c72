"""GRAM against determinants of Gram matrices in float64."""

import jax
import jax.numpy as jnp
import losses_reference as reference
import numpy as np
import pytest
from losses_reference import assert_close, gram_volumes, numeric_gradient, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError
from medjax.losses.gram import span
from medjax.losses.similarity import gram_volume

SCALE = 14.0
TOLERANCE = 2e-5  # a subtraction of numbers near 1 under a root, in float32


def volumes(anchors, others, present=None, eps=0.0):
    present = present or [np.ones(len(others[0]), bool)] * len(others)
    queries = {"anchor": anchors, "square": jnp.sum(anchors**2, axis=1)}
    return -gram_volume({"scale": 1.0, "eps": eps}, queries, span(others, present))


def check_value_and_gradient(z, present=None, **options):
    objective = losses.get("gram", **options)

    def call(z, scale):
        return objective(z, logit_scale=scale, present=present).mean()

    value, (d_z, d_scale) = jax.jit(jax.value_and_grad(call, argnums=(0, 1)))(z, SCALE)
    smoothing = options.get("label_smoothing", 0.1)

    def oracle(t):
        return reference.gram({m: t[m] for m in z}, float(t["scale"]), options["anchor"], smoothing, present=present)

    expected = numeric_gradient(oracle, {**z, "scale": np.array(SCALE)})
    assert_close(value, oracle({**{m: x.astype(np.float64) for m, x in z.items()}, "scale": SCALE}), TOLERANCE)
    assert_close(d_scale, expected.pop("scale"), 1e-4)
    assert_close(d_z, expected, TOLERANCE)


@pytest.mark.parametrize("others", [1, 2, 3, 4])
def test_volumes_equal_determinants(rng, others):
    vectors = list(unit_rows(rng, 7, 8, "abcd"[:others]).values())
    anchors = unit_rows(rng, 5, 8, "x")["x"] * 1.3  # not only unit vectors
    assert_close(volumes(anchors, vectors), gram_volumes(anchors.astype(np.float64), vectors), 1e-5)


def test_absent_modalities_drop_out_of_the_volume(rng):
    vectors = list(unit_rows(rng, 12, 8, "abc").values())
    present = list(some_present(rng, 12, "abc").values())
    anchors = unit_rows(rng, 5, 8, "x")["x"]
    assert_close(volumes(anchors, vectors, present), gram_volumes(anchors, vectors, present), 1e-5)


def test_volume_of_two_unit_vectors_is_the_sine_of_their_angle():
    angle = np.linspace(0.1, 3.0, 9, dtype=np.float32)
    others = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    anchor = np.array([[1.0, 0.0]], np.float32)
    np.testing.assert_allclose(volumes(anchor, [others])[0], np.sin(angle), atol=1e-6)


@pytest.mark.parametrize("modalities", ["ab", "abc", "abcd"])
def test_value_and_gradient_equal_the_reference(rng, modalities):
    check_value_and_gradient(unit_rows(rng, 5, 6, modalities), anchor="b")


def test_without_label_smoothing_equals_the_reference(rng):
    check_value_and_gradient(unit_rows(rng, 5, 6, "abc"), anchor="a", label_smoothing=0.0)


def test_missing_modalities_equal_the_reference(rng):
    check_value_and_gradient(unit_rows(rng, 7, 6, "abc"), present=some_present(rng, 7, "abc"), anchor="c")


def test_modality_absent_everywhere_gives_the_smaller_problem(rng):
    z = unit_rows(rng, 8, 6, "abcd")
    present = {m: np.full(8, m != "c") for m in z}
    objective = losses.get("gram", anchor="a")

    def call(z, present=None):
        return objective(z, logit_scale=SCALE, present=present).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))(z, present)
    smaller, smaller_gradient = jax.jit(jax.value_and_grad(call))({m: z[m] for m in "abd"})
    assert_close(value, smaller, 1e-6)
    assert not np.any(gradient.pop("c"))
    assert_close(gradient, smaller_gradient, 1e-6)


@pytest.mark.parametrize("modalities", ["ab", "abcd"])
def test_collinear_vectors_have_a_small_loss_and_finite_gradient(rng, modalities):
    one = unit_rows(rng, 6, 8, "x")["x"]
    z = dict.fromkeys(modalities, one)

    def call(z):
        return losses.get("gram", anchor="a")(z, logit_scale=SCALE).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))(z)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient.values())


def test_volume_is_accurate_for_nearly_collinear_vectors(rng):
    one = unit_rows(rng, 6, 8, "x")["x"].astype(np.float64)
    others = [(one + 0.03 * rng.normal(size=one.shape)).astype(np.float32) for _ in range(2)]
    expected = gram_volumes(one.astype(np.float32).astype(np.float64), [x.astype(np.float64) for x in others])
    # At a volume of 1e-2 the square, 1e-4, is a difference of numbers near 1 known to 1e-7.
    np.testing.assert_allclose(volumes(one.astype(np.float32), others), expected, atol=2e-3 * expected.max())


def test_sign_of_a_modality_does_not_matter(rng):
    z = unit_rows(rng, 8, 6, "abc")
    objective = losses.get("gram", anchor="a")

    def call(z):
        return objective(z, logit_scale=SCALE).mean()

    assert_close(call({**z, "b": -z["b"]}), call(z), 1e-6)


def test_order_of_rows_does_not_matter(rng):
    z, order = unit_rows(rng, 12, 8, "abc"), rng.permutation(12)

    def call(z):
        return losses.get("gram", anchor="a")(z, logit_scale=SCALE).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))(z)
    value_shuffled, gradient_shuffled = jax.jit(jax.value_and_grad(call))({m: x[order] for m, x in z.items()})
    assert_close(value_shuffled, value, 2e-6)
    assert_close(gradient_shuffled, {m: g[order] for m, g in gradient.items()}, 5e-6)


@pytest.mark.parametrize("target", ["a", "b"])
def test_score_is_minus_the_volume_whichever_modality_is_sought(rng, target):
    z = unit_rows(rng, 4, 6, "abc")
    queries = {m: z[m] for m in "abc" if m != target}
    candidates = unit_rows(rng, 5, 6, "x")["x"]
    objective = losses.get("gram", anchor="a", modalities=("a", "b", "c"))
    score = objective.score(queries, candidates, target, logit_scale=3.0)
    assert_close(score, -3.0 * gram_volumes(candidates, list(queries.values())).T, 1e-5)


def test_the_released_gather_trains_one_side_in_each_direction(rng):
    z = unit_rows(rng, 6, 4, "abc")
    smooth = {"anchor": "a", "label_smoothing": 0.0}

    def gradient(**options):
        return jax.grad(lambda z: losses.get("gram", **smooth, **options)(z, logit_scale=5.0).mean())(z)

    def term(name):
        objective = losses.get("gram", **smooth)
        return jax.grad(lambda z: 0.5 * objective(z, logit_scale=5.0).groups["gram"].terms[name].mean())(z)

    one_sided = gradient(stop_gradient=True)
    np.testing.assert_allclose(one_sided["a"], term("a_to_others")["a"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(one_sided["b"], term("others_to_a")["b"], rtol=1e-5, atol=1e-7)
    assert np.abs(one_sided["a"] - gradient()["a"]).max() > 1e-3


@pytest.mark.parametrize("eps", [0.0, -1e-6])
def test_a_floor_that_leaves_no_gradient_is_refused(eps):
    with pytest.raises(UserError, match="eps must be positive"):
        losses.get("gram", anchor="a", modalities=("a", "b"), eps=eps)
