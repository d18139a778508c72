"""bfloat16 inputs, and scales at which naive float32 arithmetic fails."""

import functools

import jax
import jax.numpy as jnp
import losses_reference as reference
import numpy as np
import pytest
from losses_reference import assert_close, symile_orders, unit_rows

from medjax import losses

KEY = jax.random.key(2)
CASES = [("info_nce", {}), ("gram", {"anchor": "a"}), ("symile", {})]


@functools.cache
def compiled(name, impl):
    objective = losses.get(name, impl=impl, block=5, **dict(CASES)[name])
    return jax.jit(jax.value_and_grad(lambda z, scale: objective(z, logit_scale=scale, key=KEY).mean()))


def value_and_gradient(name, z, scale, impl="dense"):
    return compiled(name, impl)(z, jnp.float32(scale))


def oracle(name, options, z, scale):
    z = {m: np.asarray(x, np.float64) for m, x in z.items()}
    given = {"orders": symile_orders(KEY, len(z), len(z["a"]))} if name == "symile" else {}
    return getattr(reference, name)(z, scale, **options, **given)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_bfloat16_inputs_lose_nothing_beyond_their_own_rounding(rng, name, options):
    z = {m: jnp.asarray(x, jnp.bfloat16) for m, x in unit_rows(rng, 12, 16, "abc").items()}
    value, gradient = value_and_gradient(name, z, 14.0, "gather")
    # Products of bfloat16 are exact in float32: only the gradient is rounded again, to 8 bits.
    assert value.dtype == jnp.float32
    assert_close(value, oracle(name, options, z, 14.0), 1e-5)
    exact = value_and_gradient(name, {m: x.astype(jnp.float32) for m, x in z.items()}, 14.0, "gather")[1]
    for m in z:
        assert gradient[m].dtype == jnp.bfloat16
        assert_close(gradient[m].astype(jnp.float32), exact[m], 2**-7)


@pytest.mark.parametrize("impl", ["dense", "gather"])
@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_large_scales_neither_overflow_nor_underflow(rng, name, options, impl, scale):
    z = unit_rows(rng, 12, 4, "abc")
    value, gradient = value_and_gradient(name, z, scale, impl)
    assert_close(value, oracle(name, options, z, scale), 2e-5)
    assert all(np.isfinite(g).all() and np.any(g) for g in gradient.values())


@pytest.mark.parametrize("impl", ["dense", "gather"])
def test_row_far_below_the_largest_logit_keeps_its_loss(rng, impl):
    """One row of tiny logits beside rows of huge ones: a maximum shared by all rows would underflow it."""
    z = unit_rows(rng, 12, 4, "ab")
    z["a"][3] = -z["b"].mean(axis=0) * 1e-3
    z["a"][4] *= 30.0
    value, _ = value_and_gradient("info_nce", z, 100.0, impl)
    assert_close(value, oracle("info_nce", {}, z, 100.0), 1e-5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_zero_scale_gives_the_logarithm_of_the_candidates(rng, name, options):
    value, gradient = value_and_gradient(name, unit_rows(rng, 12, 4, "abc"), 0.0)
    np.testing.assert_allclose(value, np.log(12), rtol=1e-6)
    assert not any(np.any(g) for g in gradient.values())
