"""What must hold of every objective on pooled embeddings, whatever the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_reference import id_rows, some_present, unit_rows

from medjax import losses

ROWS, WIDTH = 8, 4
# What an objective cannot do without; those that draw at random are tested with their own files.
OPTIONS = {
    "gram": {"anchor": "b"},
    "mgca_instance": {"image": "a", "text": "b", "modalities": ("a", "b")},
    "more": {"anchor": "b"},
    "similarity_distillation": {"teacher": "b"},
}


def applies(name):
    objective = losses.get(name, **OPTIONS.get(name, {}))
    return objective.takes == "pooled" and not {"key", "prototypes"} & set(objective.needs)


POOLED = sorted(filter(applies, losses.OBJECTIVES))
batches = st.integers(0, 2**31 - 1)
quick = settings(max_examples=8, deadline=None)


@functools.cache
def compiled(name, rows=ROWS, modalities="abc", **options):
    """The value and its gradient in the embeddings."""
    objective = losses.get(name, **OPTIONS.get(name, {}), **options)
    bias = {} if objective.bias is None else {"logit_bias": -3.0}

    def call(z, scale, present, ids, targets):
        if name == "sepclr" and targets is not None:
            targets = targets[:, 0] > 0.5
        return objective(z, logit_scale=scale, present=present, ids=ids, targets=targets, **bias).mean()

    return jax.jit(jax.value_and_grad(call))


def draw(seed, rows=ROWS, modalities="abc"):
    """Embeddings, masks, ids and targets of a batch."""
    rng = np.random.default_rng(seed)
    z, present = unit_rows(rng, rows, WIDTH, modalities), some_present(rng, rows, modalities)
    ids = {"patient": id_rows(rng.integers(0, 5, rows)), "text": id_rows(rng.integers(0, 6, rows))}
    return z, present, ids, (rng.random((rows, 3)) < 0.5).astype(np.float32)


def take(tree, order):
    return jax.tree.map(lambda x: x[order], tree)


@pytest.mark.parametrize("name", POOLED)
@given(seed=batches, scale=st.floats(0.1, 100.0))
@quick
def test_the_order_of_the_batch_does_not_matter(name, seed, scale):
    batch = draw(seed)
    order = np.random.default_rng(seed).permutation(ROWS)
    value, gradient = compiled(name)(batch[0], scale, *batch[1:])
    moved, moved_gradient = compiled(name)(take(batch[0], order), scale, *take(batch[1:], order))
    np.testing.assert_allclose(moved, value, rtol=1e-4, atol=1e-4)
    for m, g in gradient.items():
        np.testing.assert_allclose(moved_gradient[m], g[order], rtol=1e-3, atol=1e-4 * (1 + np.abs(g).max()))


@pytest.mark.parametrize("name", POOLED)
@given(seed=batches)
@quick
def test_absent_rows_have_no_influence_and_no_gradient(name, seed):
    z, present, ids, targets = draw(seed)
    other = {m: np.where(present[m][:, None], x, -x[::-1]) for m, x in z.items()}
    value, gradient = compiled(name)(z, 5.0, present, ids, targets)
    np.testing.assert_allclose(compiled(name)(other, 5.0, present, ids, targets)[0], value, rtol=1e-5, atol=1e-6)
    assert all(not np.any(g[~present[m]]) for m, g in gradient.items())


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("scale", [pytest.param(1e-6, marks=pytest.mark.slow), 1e4])
def test_extreme_scales_and_collapsed_embeddings_stay_finite(name, scale):
    z, present, ids, targets = draw(0)
    same = {m: np.tile(x[:1], (ROWS, 1)) for m, x in z.items()}
    zero = {m: np.zeros_like(x) for m, x in z.items()}
    equal = dict.fromkeys(z, z["a"])
    for embeddings in (z, same, zero, equal):
        value, gradient = compiled(name)(embeddings, scale, present, ids, targets)
        assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradient.values())


@pytest.mark.parametrize("name", POOLED)
def test_a_batch_without_anything_gives_zero_loss_and_gradient(name):
    z, present, ids, targets = draw(0)
    value, gradient = compiled(name)(z, 5.0, {m: np.zeros_like(p) for m, p in present.items()}, ids, targets)
    assert value == 0 and not any(np.any(g) for g in gradient.values())


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_gives_zero_and_one_row_a_number(name, rows):
    z, _, ids, targets = draw(0, rows=2)
    z, ids, targets = take((z, ids, targets), np.arange(rows))
    value, gradient = compiled(name, rows)(z, 5.0, {m: np.ones(rows, bool) for m in z}, ids, targets)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradient.values())
    assert rows or (value == 0 and all(g.shape == (0, WIDTH) for g in gradient.values()))


@pytest.mark.parametrize("name", POOLED)
def test_bfloat16_embeddings_are_computed_in_float32(name):
    z, present, ids, targets = draw(1)
    rounded = {m: jnp.asarray(x, jnp.bfloat16) for m, x in z.items()}
    value, gradient = compiled(name)(rounded, 5.0, present, ids, targets)
    exact, _ = compiled(name)({m: x.astype(jnp.float32) for m, x in rounded.items()}, 5.0, present, ids, targets)
    assert value.dtype == jnp.float32 and gradient["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(value, exact, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["info_nce", "gram", "multi_positive"])
@given(seed=batches)
@quick
def test_a_doubled_batch_of_known_duplicates_costs_one_bit_more(name, seed):
    """Every row has its copy as a further answer: each sum of exponentials doubles, and the answers stay."""
    z, _, ids, _ = draw(seed)
    ids = {"patient": id_rows(np.arange(1, ROWS + 1)), "text": ids["text"]}
    full = {m: np.ones(ROWS, bool) for m in z}
    twice = jax.tree.map(lambda x: np.concatenate([x, x]), (z, full, ids))
    one, _ = compiled(name, same_patient="positive")(z, 5.0, full, ids, None)
    two, _ = compiled(name, same_patient="positive")(twice[0], 5.0, *twice[1:], None)
    np.testing.assert_allclose(two, one + np.log(2), rtol=1e-5)


@pytest.mark.parametrize("name", ["info_nce", "decoupled", "sigmoid", "gram", "convirt", "more"])
@given(seed=batches)
@quick
def test_a_modality_that_nobody_has_leaves_the_smaller_problem(name, seed):
    z, present, ids, targets = draw(seed)
    present = present | {"c": np.zeros(ROWS, bool)}
    value, _ = compiled(name)(z, 5.0, present, ids, targets)
    two = {m: z[m] for m in "ab"}
    smaller, _ = compiled(name)(two, 5.0, {m: present[m] for m in "ab"}, ids, targets)
    np.testing.assert_allclose(value, smaller, rtol=1e-5)


@pytest.mark.parametrize("name", ["info_nce", "more", "convirt"])
def test_a_scale_near_zero_leaves_the_logarithm_of_the_candidates(name):
    z, _, ids, targets = draw(2)
    full = {m: np.ones(ROWS, bool) for m in z}
    value, _ = compiled(name)(z, 1e-6, full, ids, targets)
    np.testing.assert_allclose(value, np.log(ROWS) * (2 if name == "more" else 1), rtol=1e-5)
