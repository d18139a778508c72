"""Pairs of one patient, of one scan or of one text: ordinary negatives, left out, or further right answers."""

import jax
import losses_reference as reference
import numpy as np
import pytest
from losses_reference import assert_close, id_rows, numeric_gradient, unit_rows

from medjax import losses

SCALE = 14.0
PATIENT = np.array([1, 1, 2, 0, 0, 3, 2, 1])  # 0 is unknown, and no one's equal
TEXT = np.array([5, 6, 6, 7, 7, 0, 0, 5])
GROUP = np.array([8, 0, 9, 8, 0, 8, 9, 3])


@pytest.mark.parametrize(
    ("name", "impl", "policies"),
    [
        ("info_nce", "dense", {"same_patient": "mask"}),
        ("info_nce", "gather", {"same_patient": "positive"}),
        ("info_nce", "dense", {"same_text": "positive"}),
        ("info_nce", "gather", {"same_patient": "mask", "same_text": "positive"}),
        ("info_nce", "dense", {"same_patient": "positive", "same_text": "mask"}),
        ("info_nce", "gather", {"same_patient": "mask", "same_text": "mask"}),
        ("info_nce", "gather", {"same_group": "mask", "same_patient": "positive"}),
        ("gram", "dense", {"same_patient": "positive"}),
        ("gram", "dense", {"same_group": "positive"}),
        ("gram", "gather", {"same_text": "mask"}),
        ("gram", "gather", {"same_patient": "positive", "same_text": "positive"}),
    ],
)
def test_policies_equal_the_reference(rng, name, impl, policies):
    options = {"anchor": "a"} if name == "gram" else {}
    z = unit_rows(rng, 8, 5, "ab")
    objective = losses.get(name, impl=impl, block=3, **options, **policies)
    ids = {"patient": id_rows(PATIENT), "text": id_rows(TEXT), "group": id_rows(GROUP)}

    def call(z):
        return objective(z, logit_scale=SCALE, ids=ids).mean()

    value, gradient = jax.jit(jax.value_and_grad(call))(z)

    def oracle(t):
        return getattr(reference, name)(t, SCALE, **options, patient=PATIENT, text=TEXT, group=GROUP, **policies)

    assert_close(value, oracle({m: x.astype(np.float64) for m, x in z.items()}), 1e-5)
    assert_close(gradient, numeric_gradient(oracle, z), 2e-5)


def test_ids_are_compared_in_all_their_64_bits(rng):
    z = unit_rows(rng, 2, 4, "ab")
    objective = losses.get("info_nce", same_patient="mask")

    def call(ids):
        return objective(z, logit_scale=SCALE, ids={"patient": np.array(ids, np.uint32)}).mean()

    plain = losses.get("info_nce")(z, logit_scale=SCALE).mean()
    assert call([[1, 2], [1, 2]]) == 0.0  # nothing is left to be told from
    for different in ([[1, 2], [1, 3]], [[1, 2], [3, 2]], [[1, 0], [0, 1]], [[0, 0], [0, 0]]):
        assert_close(call(different), plain, 1e-6)


def test_masked_pairs_have_no_gradient_between_them(rng):
    """Row 1 moves: the loss of row 0, of the same patient, does not see it, and that of row 2 does."""
    z = unit_rows(rng, 4, 4, "ab")
    objective = losses.get("info_nce", same_patient="mask")

    @jax.jit
    @jax.grad
    def gradient(a, b):
        loss = objective({"a": a, "b": b}, logit_scale=2.0, ids={"patient": id_rows([1, 1, 2, 2])})
        return loss.groups["info_nce"].terms["a_to_b"].total

    moved = z["b"].copy()
    moved[1] = unit_rows(rng, 1, 4, "x")["x"][0]
    before, after = gradient(z["a"], z["b"]), gradient(z["a"], moved)
    assert_close(after[0], before[0], 1e-6)
    assert np.abs(after[2] - before[2]).max() > 1e-3
