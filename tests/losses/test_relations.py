"""Pairs of one patient or of one text: ordinary negatives, left out, or further right answers."""

import jax
import losses_reference as reference
import numpy as np
import pytest
from losses_reference import assert_close, id_rows, numeric_gradient, unit_rows

from medjax import losses

SCALE = 14.0
PATIENT = np.array([1, 1, 2, 0, 0, 3, 2, 1])  # 0 is unknown, and no one's equal
TEXT = np.array([5, 6, 6, 7, 7, 0, 0, 5])


@pytest.mark.parametrize(
    "policies",
    [
        {"same_patient": "mask"},
        {"same_patient": "positive"},
        {"same_text": "mask"},
        {"same_text": "positive"},
        {"same_patient": "mask", "same_text": "positive"},
        {"same_patient": "positive", "same_text": "mask"},
        {"same_patient": "mask", "same_text": "mask"},
    ],
)
@pytest.mark.parametrize(("name", "options"), [("info_nce", {}), ("gram", {"anchor": "a"})])
@pytest.mark.parametrize("impl", ["dense", "gather"])
def test_policies_equal_the_reference(rng, name, options, policies, impl):
    z = unit_rows(rng, 8, 5, "ab")
    objective = losses.get(name, impl=impl, block=3, **options, **policies)
    ids = {"patient": id_rows(PATIENT), "text": id_rows(TEXT)}
    call = lambda z: objective(z, logit_scale=SCALE, ids=ids).mean()
    value, gradient = jax.jit(jax.value_and_grad(call))(z)
    oracle = lambda t: getattr(reference, name)(t, SCALE, **options, patient=PATIENT, text=TEXT, **policies)
    assert_close(value, oracle({m: x.astype(np.float64) for m, x in z.items()}), 1e-5)
    assert_close(gradient, numeric_gradient(oracle, z), 2e-5)


def test_ids_are_compared_in_all_their_64_bits(rng):
    z = unit_rows(rng, 2, 4, "ab")
    objective = losses.get("info_nce", same_patient="mask")
    call = lambda ids: objective(z, logit_scale=SCALE, ids={"patient": np.array(ids, np.uint32)}).mean()
    plain = losses.get("info_nce")(z, logit_scale=SCALE).mean()
    assert call([[1, 2], [1, 2]]) == 0.0  # nothing is left to be told from
    for different in ([[1, 2], [1, 3]], [[1, 2], [3, 2]], [[1, 0], [0, 1]], [[0, 0], [0, 0]]):
        assert_close(call(different), plain, 1e-6)


def test_masked_pairs_have_no_gradient_between_them(rng):
    z = unit_rows(rng, 4, 4, "ab")
    ids = {"patient": id_rows([1, 1, 2, 2])}
    objective = losses.get("info_nce", pairs=(("a", "b"),), same_patient="mask")
    row = lambda b: objective({"a": z["a"], "b": b}, logit_scale=SCALE, ids=ids).mean()
    moved = z["b"].copy()
    base = jax.grad(lambda a: objective({"a": a, "b": z["b"]}, logit_scale=SCALE, ids=ids).groups["info_nce"].terms[
        "a_to_b"
    ].total)(z["a"])
    moved[1] = unit_rows(rng, 1, 4, "x")["x"][0]
    after = jax.grad(lambda a: objective({"a": a, "b": moved}, logit_scale=SCALE, ids=ids).groups["info_nce"].terms[
        "a_to_b"
    ].total)(z["a"])
    assert_close(after[0], base[0], 1e-6)  # row 0 and row 1 are one patient
    assert np.abs(after[2] - base[2]).max() > 1e-3
    assert row(moved) != row(z["b"])
