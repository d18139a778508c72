"""MIL-NCE against its formula in float64, paper and released forms."""

import numpy as np
import pytest
from losses_check import assert_matches
from losses_reference import id_rows, unit_rows
from token_batches import (
    check_edges,
    check_half_precision,
    log_sum,
    present_samples,
    token_batch,
    value_and_gradient,
)

from medjax.errors import UserError
from medjax.losses import get

SCALE = {"logit_scale": 4.0}


def mil_nce(z, scale, present, released=False, patient=None, policy="ignore") -> float:
    """arXiv 1912.06430; images are `z["image"].pooled`."""
    here = present_samples(z, present)
    b = len(here["image"])
    s = scale * np.einsum("je,ine->ijn", z["image"].pooled, z["text"].tokens)  # [text sample, image, sentence]
    s = np.where(z["text"].mask[:, None] & here["text"][:, None, None] & here["image"][None, :, None], s, -np.inf)
    own = np.eye(b, dtype=bool)
    same = np.zeros_like(own) if patient is None else (patient[:, None] == patient[None]) & (patient > 0)[:, None]
    answer, negative = own | (same & (policy == "positive")), ~own & ~(same & (policy != "ignore"))
    values = []
    for i in np.flatnonzero(here["image"] & here["text"]):
        bag = log_sum(s[answer[:, i], i].ravel())
        others = np.logaddexp(log_sum(s[negative[:, i], i].ravel()), log_sum(s[i][negative[i]].ravel()))
        total = np.logaddexp(others, bag + (np.log(2) if released else 0.0))
        values.append(total - bag)
    return float(np.mean(values)) if values else 0.0


def batch(rng, sentences=2, **options):
    z, present = token_batch(rng, sentences=sentences, patches=1, **options)
    z["image"] = z["image"]._replace(pooled=unit_rows(rng, 8, 3, "a")["a"])
    return z, present


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_value_and_gradient_equal_the_formula(rng, variant):
    z, present = batch(rng)

    def oracle(z, scalars, _):
        return mil_nce(z, scalars["logit_scale"], present, variant == "released")

    assert_matches("mil_nce", {"variant": variant}, oracle, z, scalars=SCALE, present=present)


def test_released_form_counts_the_bag_twice(rng):
    z, _ = batch(rng, masked=False)
    alone = {m: x._replace(**{k: v[:1] for k, v in x._asdict().items() if v is not None}) for m, x in z.items()}
    assert value_and_gradient("mil_nce", alone, 4.0)[0] == 0.0
    released, _ = value_and_gradient("mil_nce", alone, 4.0, {"variant": "released"})
    np.testing.assert_allclose(released, np.log(2.0), rtol=1e-6)
    assert get("mil_nce").scale.init == 10.0
    assert get("mil_nce", variant="released").scale.init == 1.0


@pytest.mark.parametrize("policy", ["mask", "positive"])
def test_bags_of_one_patient_can_be_left_out_or_joined(rng, policy):
    z, present = batch(rng)
    patient = np.array([1, 1, 2, 2, 3, 0, 0, 3])
    ids = {"patient": id_rows(patient)}
    value, _ = value_and_gradient("mil_nce", z, 4.0, {"same_patient": policy}, present=present, ids=ids)
    expected = mil_nce(z, 4.0, present, patient=patient, policy=policy)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert not np.isclose(expected, mil_nce(z, 4.0, present), rtol=1e-3)


def test_one_fitting_sentence_is_enough(rng):
    z, _ = batch(rng, masked=False)
    vectors = np.eye(8, dtype=np.float32)
    z["image"] = z["image"]._replace(tokens=vectors[:, None], pooled=vectors)
    z["text"] = z["text"]._replace(tokens=np.stack([vectors, -vectors], axis=1))
    value, gradient = value_and_gradient("mil_nce", z, 100.0)
    assert value < 1e-6
    assert all(np.isfinite(g).all() for g in (gradient["image"].pooled, gradient["text"].tokens))
    z["text"] = z["text"]._replace(mask=np.array([[False, True]] * 8))
    value, _ = value_and_gradient("mil_nce", z, 100.0)
    np.testing.assert_allclose(value, 100.0 + np.log(14.0), rtol=1e-6)  # 7 negatives at 0 in each direction


def test_padding_order_absence_and_extremes(rng):
    z, present = batch(rng)
    check_edges("mil_nce", z, present, rng)


def test_accepts_half_precision(rng):
    z, present = batch(rng)
    check_half_precision("mil_nce", z, present=present)


def test_the_image_must_have_one_vector(rng):
    z, _ = token_batch(rng)
    with pytest.raises(UserError, match=r"mil_nce needs Tokens\.pooled of 'image'"):
        get("mil_nce")(z, logit_scale=1.0)
