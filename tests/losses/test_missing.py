"""What is absent enters nothing: no value, no gradient, no NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_reference import assert_close, some_present, unit_rows

from medjax import losses

KEY = jax.random.key(7)
CASES = {
    "info_nce": ("info_nce", {"impl": "dense"}),
    "info_nce in blocks": ("info_nce", {"impl": "gather", "block": 5}),
    "gram": ("gram", {"anchor": "a", "impl": "dense"}),
    "gram in blocks": ("gram", {"anchor": "a", "impl": "gather", "block": 5}),
    "symile": ("symile", {"impl": "gather", "block": 5}),
    "symile neutral": ("symile", {"missing": "neutral", "mip_scale": "sqrt_d_power"}),
}


@functools.cache
def compiled(case):
    name, options = CASES[case]
    objective = losses.get(name, **options)

    def call(z, scale, present):
        return objective(z, logit_scale=scale, present=present, key=KEY).mean()

    return jax.jit(jax.value_and_grad(call, argnums=(0, 1)))


def value_and_gradient(case, z, present):
    return compiled(case)(z, jnp.float32(14.0), present)


@pytest.mark.parametrize("case", CASES)
def test_absent_rows_have_exactly_no_gradient(rng, case):
    z, present = unit_rows(rng, 12, 6, "abc"), some_present(rng, 12, "abc")
    _, (gradient, _) = value_and_gradient(case, z, present)
    for m in z:
        assert not np.any(np.asarray(gradient[m])[~present[m]])
        assert np.any(gradient[m])


@pytest.mark.parametrize("case", CASES)
def test_content_of_absent_rows_does_not_matter(rng, case):
    z, present = unit_rows(rng, 12, 6, "abc"), some_present(rng, 12, "abc")
    other = {
        m: np.where(present[m][:, None], z[m], fill).astype(np.float32) for m, fill in zip(z, (0, 9, -1e3), strict=True)
    }
    assert_close(value_and_gradient(case, other, present), value_and_gradient(case, z, present), 1e-7)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("zeros", [True, False])
def test_batch_without_anything_valid_has_zero_loss_and_gradient(rng, case, zeros):
    z = unit_rows(rng, 12, 6, "abc")
    z = {m: 0 * x for m, x in z.items()} if zeros else z
    present = dict.fromkeys("abc", np.zeros(12, bool))
    value, gradient = value_and_gradient(case, z, present)
    assert value == 0.0
    assert all(np.array_equal(g, np.zeros_like(g)) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("case", CASES)
def test_single_modality_of_a_row_contrasts_with_nothing(rng, case):
    z = unit_rows(rng, 12, 6, "abc")
    present = {"a": np.ones(12, bool), "b": np.zeros(12, bool), "c": np.zeros(12, bool)}
    value, gradient = value_and_gradient(case, z, present)
    assert value == 0.0
    assert all(np.array_equal(g, np.zeros_like(g)) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("case", ["info_nce", "gram in blocks"])
def test_absent_rows_change_nothing_for_the_others(rng, case):
    """A padded batch has the loss of the batch without its padding."""
    z = unit_rows(rng, 9, 6, "abc")
    padded = {m: np.concatenate([x, np.zeros((3, 6), np.float32)]) for m, x in z.items()}
    value, (gradient, _) = value_and_gradient(case, padded, dict.fromkeys("abc", np.arange(12) < 9))
    expected, (expected_gradient, _) = value_and_gradient(case, z, dict.fromkeys("abc", np.ones(9, bool)))
    assert_close(value, expected, 1e-5)
    assert_close({m: g[:9] for m, g in gradient.items()}, expected_gradient, 1e-5)
