"""MP-NCE against its formula in float64, and as symmetric InfoNCE where an image has one sentence."""

import losses_reference as reference
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
    unit,
    value_and_gradient,
)

from medjax import losses
from medjax.errors import UserError
from medjax.losses import Tokens

SCALE = {"logit_scale": 6.0}


def similarities(z, present, scale, similarity, attention):
    """float64[b, n, k]: of every sentence with every image."""
    image, text = z["image"], z["text"]
    if similarity == "pooled":
        return scale * np.einsum("bne,ke->bnk", text.tokens, image.pooled)
    out = np.zeros((*text.mask.shape, len(image.mask)))
    for k in np.flatnonzero(present["image"]):
        patches = image.tokens[k][image.mask[k]]
        scores = (scale if attention is None else attention) * text.tokens @ patches.T
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        seen = weights / weights.sum(-1, keepdims=True) @ patches
        out[..., k] = scale * np.sum(unit(text.tokens) * unit(seen), axis=-1)
    return out


def mp_nce(z, scale, present, similarity="vl_cabs", attention=None, row_sum=False, col_sum=False, masked=None) -> float:
    """arXiv 2504.07416: masked bool[b, n, k] are pairs left out of the negatives."""
    here = present_samples(z, present)
    s = similarities(z, here, scale, similarity, attention)
    b, _ = z["text"].mask.shape
    real = z["text"].mask & here["text"][:, None]
    allowed = np.broadcast_to(real[..., None] & here["image"], s.shape).copy()
    if masked is not None:
        own = np.eye(b, dtype=bool)[:, None, :]
        allowed &= own | ~masked
    rows, columns = [], []
    for g in np.flatnonzero(here["image"] & real.any(1)):
        sentences = np.flatnonzero(real[g])
        bag = log_sum(s[g, sentences, g])
        others = allowed[:, :, g].copy()
        others[g] = False
        negatives = log_sum(s[:, :, g][others])
        by_row = [log_sum(s[g, i][allowed[g, i]]) for i in sentences]
        if row_sum:
            rows.append(log_sum(by_row) - bag)
        else:
            rows += [total - s[g, i, g] for total, i in zip(by_row, sentences, strict=True)]
        if col_sum:
            columns.append(np.logaddexp(bag, negatives) - bag)
        else:
            columns += [np.logaddexp(s[g, i, g], negatives) - s[g, i, g] for i in sentences]
    return float(np.mean(rows) + np.mean(columns)) / 2 if rows else 0.0


def oracle(present, **options):
    return lambda z, scalars, _: mp_nce(z, scalars["logit_scale"], present, **options)


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, {}),
        ({"attention_scale": 2.0, "row_sum": True}, {"attention": 2.0, "row_sum": True}),
        ({"similarity": "pooled", "col_sum": True}, {"similarity": "pooled", "col_sum": True}),
    ],
)
def test_value_and_gradient_equal_the_formula(rng, options, plain):
    z, present = token_batch(rng)
    if options.get("similarity") == "pooled":
        z["image"] = z["image"]._replace(pooled=unit_rows(rng, 8, 3, "a")["a"])
    places = ("dense",) if "row_sum" in options else ("dense", "ring")
    assert_matches("mp_nce", options, oracle(present, **plain), z, scalars=SCALE, places=places, present=present)


def by_pairs(z, scale, present, same) -> float:
    """The formula where `same` bool[b, n, k] are further answers: a row and a column for each, with no other answer."""
    here = present_samples(z, present)
    s = similarities(z, here, scale, "vl_cabs", None)
    allowed = (z["text"].mask & here["text"][:, None])[..., None] & here["image"]
    answer = (np.eye(len(s), dtype=bool)[:, None] | same) & allowed
    negative, values = allowed & ~answer, []
    for g, i, k in np.argwhere(answer):
        for others in (s[g, i][negative[g, i]], s[:, :, k][negative[:, :, k]]):
            values.append(np.logaddexp(s[g, i, k], log_sum(others)) - s[g, i, k])
    return float(np.mean(values))


def test_images_of_one_patient_can_be_answers_too(rng):
    z, present = token_batch(rng)
    patient = np.array([1, 1, 2, 2, 3, 0, 0, 3])
    same = np.broadcast_to(((patient[:, None] == patient[None]) & (patient > 0)[:, None])[:, None], (8, 2, 8))

    def oracle(z, scalars, _):
        return by_pairs(z, scalars["logit_scale"], present, same)

    options, ids = {"same_patient": "positive"}, {"patient": id_rows(patient)}
    assert_matches("mp_nce", options, oracle, z, scalars=SCALE, present=present, ids=ids)
    nobody = np.zeros_like(same)
    np.testing.assert_allclose(by_pairs(z, 6.0, present, nobody), mp_nce(z, 6.0, present), rtol=1e-12)


@pytest.mark.parametrize("similarity", ["pooled", "vl_cabs"])
def test_one_sentence_and_one_patch_an_image_are_symmetric_infonce(rng, similarity):
    z = unit_rows(rng, 8, 5, "ab")
    tokens = {
        "image": Tokens(z["a"][:, None], np.ones((8, 1), bool)),
        "text": Tokens(z["b"][:, None], np.ones((8, 1), bool)),
    }
    value, gradient = value_and_gradient("mp_nce", tokens, 9.0, {"similarity": similarity})
    expected = reference.info_nce({m: x.astype(np.float64) for m, x in z.items()}, 9.0)
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    assert gradient["image"].tokens.any()


def test_equal_sentences_of_other_images_can_be_left_out(rng):
    z, present = token_batch(rng, sentences=3)
    numbers = rng.integers(0, 4, (8, 3))  # 0 is unknown
    z["text"] = z["text"]._replace(group=np.stack([numbers * 7, numbers], -1).astype(np.uint32))
    real = np.where(z["text"].mask & present["text"][:, None], numbers, 0)
    same = ((numbers[:, :, None, None] == real[None, None]) & (numbers > 0)[:, :, None, None]).any(-1)
    plain = oracle(present, masked=same)
    assert_matches("mp_nce", {"same_sentence": "mask"}, plain, z, scalars=SCALE, places=("ring",), present=present)
    assert plain(z, SCALE, None) < oracle(present)(z, SCALE, None)


def test_images_of_one_patient_can_be_left_out(rng):
    z, present = token_batch(rng)
    patient = np.array([1, 1, 2, 2, 3, 0, 0, 3])
    same = (patient[:, None] == patient[None]) & (patient > 0)[:, None]
    masked = np.broadcast_to(same[:, None], (8, 2, 8))
    value, _ = value_and_gradient(
        "mp_nce", z, 6.0, {"same_patient": "mask"}, present=present, ids={"patient": id_rows(patient)}
    )
    np.testing.assert_allclose(value, mp_nce(z, 6.0, present, masked=masked), rtol=1e-5)


def test_padding_order_absence_and_extremes(rng):
    check_edges("mp_nce", *token_batch(rng), rng)


def test_accepts_half_precision(rng):
    z, present = token_batch(rng)
    check_half_precision("mp_nce", z, present=present)


def test_wrong_use_is_named(rng):
    z, _ = token_batch(rng)
    with pytest.raises(UserError, match=r"Tokens\.pooled of 'image'"):
        losses.get("mp_nce", similarity="pooled")(z, logit_scale=1.0)
    with pytest.raises(UserError, match=r"mp_nce.*Tokens\.group"):
        losses.get("mp_nce", same_sentence="mask")(z, logit_scale=1.0)
    with pytest.raises(UserError, match="row_sum and col_sum know one image a sentence"):
        ids = {"text": id_rows(np.arange(8))}
        losses.get("mp_nce", same_text="positive", row_sum=True)(z, logit_scale=1.0, ids=ids)
    with pytest.raises(UserError, match=r"mp_nce's image='ecg'.*valid: image, text"):
        losses.get("mp_nce", image="ecg")(z, logit_scale=1.0)
