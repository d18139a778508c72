"""Symile with all pairs as negatives: the one-pass cube against its formula, its authors' package, and its limits."""

import functools
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_check import assert_matches
from losses_reference import assert_close, id_rows, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError

SCALE = 20.0
TOLERANCE = 1e-5  # float32 logits near 20


def denominators(present, missing="mask", patient=None):
    """For every valid anchor row `(modality 0..2, indices int[candidates, 3], which of them is aligned)`.

    Index n stands for an absent member: a vector of ones, one candidate however many rows lack it.
    """
    n = len(present[0])
    rows = [[j for j in range(n) if here[j]] for here in present]
    if missing == "neutral":
        rows = [r + [n] * (len(r) < n) for r in rows]
    out = []
    for anchor, i in product(range(3), range(n)):
        own = tuple(i if here[i] else n for here in present)
        members = [r if m != anchor else [i] for m, r in enumerate(rows)]
        absent = own.count(n)
        if own[anchor] == n or absent == 2 or (absent and missing == "mask"):
            continue
        tuples = [t for t in product(*members) if t.count(n) < 2]
        if patient is not None and patient[i]:
            tuples = [t for t in tuples if t == own or any(r < n and patient[r] != patient[i] for r in t)]
        out.append((anchor, np.array(tuples), tuples.index(own)))
    return out


def reference(z, scale, rows, mip_scale="none") -> float:
    """arXiv 2411.01053, section 3.3: each anchor row of `denominators` against its candidates."""
    width = z["a"].shape[1]
    factor = width**0.5 if mip_scale == "sqrt_d_power" else 1.0
    scale = scale * width**-0.5 if mip_scale == "sqrt_d_power" else scale
    x, y, w = (np.concatenate([factor * z[m], np.ones((1, width))]) for m in "abc")
    cube = scale * np.einsum("ie,je,ke->ijk", x, y, w)
    values = [[], [], []]
    for anchor, tuples, own in rows:
        logits = cube[tuple(tuples.T)]
        values[anchor].append(np.log(np.sum(np.exp(logits - logits.max()))) + logits.max() - logits[own])
    return float(np.mean([np.mean(v) for v in values if v]))


def check(z, present=None, patient=None, missing="mask", mip_scale="none", kind="patient"):
    here = [np.ones(8, bool) if present is None else present[m] for m in "abc"]
    rows = denominators(here, missing, patient)

    def formula(z, scalars, _):
        return reference(z, float(scalars["logit_scale"]), rows, mip_scale)

    options = {"negatives": "n_squared", "missing": missing, "mip_scale": mip_scale}
    options |= {} if patient is None else {f"same_{kind}": "mask"}
    ids = None if patient is None else {kind: id_rows(patient)}
    scalars = {"logit_scale": SCALE}
    assert_matches("symile", options, formula, z, scalars=scalars, tolerance=TOLERANCE, present=present, ids=ids)


def value_and_gradient(z, scale=SCALE, present=None, impl="auto", block=1024, **options):
    objective = losses.get("symile", negatives="n_squared", impl=impl, block=block, **options)

    def call(z, scale):
        return objective(z, logit_scale=scale, present=present).mean()

    return jax.jit(jax.value_and_grad(call, argnums=(0, 1)))(z, scale)


@pytest.mark.parametrize("mip_scale", ["none", "sqrt_d_power"])
def test_value_and_gradient_equal_the_reference(rng, mip_scale):
    check(unit_rows(rng, 8, 3, "abc"), mip_scale=mip_scale)


@pytest.mark.parametrize("missing", ["mask", "neutral"])
def test_missing_modalities_and_patients_equal_the_reference(rng, missing):
    rows = np.array([[1, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 1]], bool)
    patient = np.array([1, 1, 1, 1, 2, 2, 0, 0])
    z = unit_rows(rng, 8, 3, "abc")
    check(z, present=dict(zip("abc", rows.T, strict=True)), patient=patient, missing=missing)
    masked, plain = (reference(z, SCALE, denominators(rows.T, missing, p)) for p in (patient, None))
    assert abs(masked - plain) > 1e-3


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_equals_the_symile_package(rng, scale):
    """At a scale of 300 most rows lie further below the largest entry than float32 reaches in one exponential."""
    package = pytest.importorskip("symile")
    torch = pytest.importorskip("torch")
    z = unit_rows(rng, 12, 5, "abc")
    theirs_z = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in z.values()]
    theirs_scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    theirs = package.Symile("n_squared")(theirs_z, theirs_scale)
    theirs.backward()
    expected = {m: x.grad.numpy() for m, x in zip(z, theirs_z, strict=True)}
    for impl, block in (("dense", 1024), ("ring", 5), ("ring", 24)):
        value, (d_z, d_scale) = value_and_gradient(z, scale, impl=impl, block=block)
        assert_close(value, theirs.detach().numpy(), TOLERANCE)
        assert_close(d_z, expected, 1e-4)  # float32 logits near 300 carry 1e-5
        assert_close(d_scale, theirs_scale.grad.numpy(), 1e-4)


def test_nothing_valid_is_zero_and_one_sample_is_the_formula(rng):
    z = unit_rows(rng, 4, 3, "abc")
    for missing in ("mask", "neutral"):
        value, gradient = value_and_gradient(z, present={m: np.zeros(4, bool) for m in z}, missing=missing)
        assert value == 0 and not any(np.any(g) for g in jax.tree.leaves(gradient))
    value, gradient = value_and_gradient({m: x[:1] for m, x in z.items()})
    assert abs(value) < 1e-6 and np.isfinite(gradient[1])


def test_absent_rows_have_no_gradient(rng):
    z, present = unit_rows(rng, 8, 4, "abc"), some_present(rng, 8, "abc")
    for missing in ("mask", "neutral"):
        _, (d_z, _) = value_and_gradient(z, present=present, missing=missing)
        assert all(not np.any(d_z[m][~present[m]]) and np.any(d_z[m]) for m in z)


def test_bfloat16_embeddings_are_accepted(rng):
    z = {m: jnp.asarray(x, jnp.bfloat16) for m, x in unit_rows(rng, 8, 4, "abc").items()}
    value, (d_z, _) = value_and_gradient(z)
    single = {m: x.astype(jnp.float32) for m, x in z.items()}
    expected, (expected_d_z, _) = value_and_gradient(single)
    assert_close(value, expected, 1e-6)  # the products are of float32 either way
    assert all(x.dtype == jnp.bfloat16 for x in d_z.values())
    assert_close({m: x.astype(jnp.float32) for m, x in d_z.items()}, expected_d_z, 2**-8)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_rows_in_another_order_have_the_same_loss(seed):
    rng = np.random.default_rng(seed)
    z, order = unit_rows(rng, 6, 3, "abc"), rng.permutation(6)
    present = {m: rng.random(6) < 0.8 for m in z}
    call = _jitted("neutral", "none")
    value, d_z = call(z, present)
    moved, moved_d_z = call({m: x[order] for m, x in z.items()}, {m: x[order] for m, x in present.items()})
    assert_close(moved, value, 1e-6)
    assert_close(moved_d_z, {m: x[order] for m, x in d_z.items()}, TOLERANCE)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from("abc"), st.sampled_from(["none", "sqrt_d_power"]))
def test_modality_absent_everywhere_gives_info_nce_of_the_other_two(seed, absent, mip_scale):
    rng = np.random.default_rng(seed)
    z = unit_rows(rng, 6, 4, "abc")
    here = rng.random(6) < 0.8
    here[0] = True
    present = {m: np.zeros(6, bool) if m == absent else here for m in z}
    value, d_z = _jitted("neutral", mip_scale)(z, present)
    smaller = {m: x for m, x in z.items() if m != absent}
    scale = SCALE * 2 if mip_scale == "sqrt_d_power" else SCALE  # the root of the width
    expected, expected_d_z = _jitted_pair()(smaller, {m: present[m] for m in smaller}, scale)
    assert_close(value, expected, TOLERANCE)
    assert not np.any(d_z[absent])
    flat = [np.asarray(d_z[m]) for m in smaller]
    assert_close(flat, [np.asarray(x) for x in expected_d_z.values()], 1e-4)


@functools.cache
def _jitted(missing, mip_scale):
    objective = losses.get("symile", negatives="n_squared", missing=missing, mip_scale=mip_scale, block=4, impl="ring")
    return jax.jit(jax.value_and_grad(lambda z, present: objective(z, logit_scale=SCALE, present=present).mean()))


@functools.cache
def _jitted_pair():
    objective = losses.get("info_nce")

    def call(z, present, scale):
        return objective(z, logit_scale=scale, present=present).mean()

    return jax.jit(jax.value_and_grad(lambda z, present, scale: call(*_named(z, present), scale)))


def _named(z, present):
    """The two modalities as x and y, so that every pair runs the same program."""
    return dict(zip("xy", z.values(), strict=True)), dict(zip("xy", present.values(), strict=True))


def test_all_negatives_cost_the_logarithm_of_the_batch_more_than_one_shuffle(rng):
    """Where nothing tells tuples apart, `n` meets B candidates and `n_squared` B^2; both bound total correlation."""
    shuffled, every = losses.get("symile"), losses.get("symile", negatives="n_squared")

    @jax.jit
    def gap(z):
        drawn = shuffled(z, logit_scale=1e-3, key=jax.random.key(0)).mean()
        return every(z, logit_scale=1e-3).mean() - drawn

    gaps = [gap(unit_rows(rng, rows, 16, "abc")) for rows in (8, 32)]
    np.testing.assert_allclose(gaps, np.log([8, 32]), atol=2e-3)  # logits of at most 1e-3


def test_other_numbers_of_modalities_are_refused(rng):
    for modalities in ("ab", "abcd"):
        with pytest.raises(UserError, match="three"):
            losses.get("symile", negatives="n_squared")(unit_rows(rng, 4, 3, modalities), logit_scale=1.0)
    with pytest.raises(UserError, match="n_squared"):
        losses.get("symile", negatives="n_cubed", modalities=("a", "b", "c"))


def test_only_shuffled_negatives_need_a_key(rng):
    assert losses.get("symile").needs == ("key",)
    assert losses.get("symile", negatives="n_squared").needs == ()
    with pytest.raises(UserError, match="key"):
        losses.get("symile")(unit_rows(rng, 4, 3, "abc"), logit_scale=1.0)
