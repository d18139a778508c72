"""GLoRIA's local loss against its formula in float64, one pair of samples after another."""

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

from medjax.errors import UserError
from medjax.losses import Tokens, get

SCALE = {"logit_scale": 2.0}


def softmax(x, axis):
    power = np.exp(x - x.max(axis, keepdims=True))
    return power / power.sum(axis, keepdims=True)


def gloria_local(z, scale, present, mean=False, attention=4.0, words=5.0, **ids) -> float:
    """Cross-entropy, summed over both directions, of the similarity of every image with every text."""
    here = present_samples(z, present)
    b = len(here["image"])
    s = np.zeros((b, b))
    for i in np.flatnonzero(here["image"]):
        for j in np.flatnonzero(here["text"]):
            v, w = z["image"].tokens[i][z["image"].mask[i]], z["text"].tokens[j][z["text"].mask[j]]
            over_patches = softmax(attention * softmax(v @ w.T, 1), 0)
            cosine = np.sum(unit(w) * unit(over_patches.T @ v), axis=1)
            s[i, j] = scale * (log_sum(words * cosine) - (np.log(len(w)) if mean else 0.0))
    keep, answers = reference.relation(b, **ids)
    allowed = here["image"][:, None] & here["text"][None] & keep
    values = [reference.cross_entropy(s, allowed, answers), reference.cross_entropy(s.T, allowed.T, answers.T)]
    return float(sum(values)) if values[0] is not None else 0.0


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, {}),
        (
            {"aggregate": "mean", "attention_scale": 3.0, "word_scale": 2.0},
            {"mean": True, "attention": 3.0, "words": 2.0},
        ),
    ],
)
def test_value_and_gradient_equal_the_formula(rng, options, plain):
    z, present = token_batch(rng, patches=2)

    def oracle(z, scalars, _):
        return gloria_local(z, scalars["logit_scale"], present, **plain)

    assert_matches("gloria_local", options, oracle, z, scalars=SCALE, present=present)


def test_one_word_and_one_patch_a_sample_are_infonce_of_cosines(rng):
    z = unit_rows(rng, 8, 5, "ab")
    tokens = {m: Tokens(x[:, None], np.ones((8, 1), bool)) for m, x in zip(("image", "text"), z.values(), strict=True)}
    value, _ = value_and_gradient("gloria_local", tokens, 2.0, {"reduction": "mean"})
    np.testing.assert_allclose(value, reference.info_nce({m: x.astype(float) for m, x in z.items()}, 10.0), rtol=5e-6)


@pytest.mark.parametrize("policy", ["mask", "positive"])
def test_samples_of_one_patient_can_be_left_out_or_made_answers(rng, policy):
    z, present = token_batch(rng)
    patient = np.array([1, 1, 2, 2, 3, 0, 0, 3])
    options = {"same_patient": policy}
    value, _ = value_and_gradient("gloria_local", z, 2.0, options, present=present, ids={"patient": id_rows(patient)})
    np.testing.assert_allclose(value, gloria_local(z, 2.0, present, patient=patient, same_patient=policy), rtol=1e-5)


def test_length_of_a_text_matters_to_the_sum_alone(rng):
    z, _ = token_batch(rng, masked=False)
    repeated = np.concatenate([z["text"].tokens, z["text"].tokens], axis=1)
    once, twice = np.zeros((8, 4), bool), np.ones((8, 4), bool)
    once[:, :2] = True
    twice[4:, 2:] = False  # half of the texts repeat themselves
    for aggregate, same in (("mean", True), ("sum", False)):
        # Without attention, in which repeated words compete, only the length is left.
        options = {"aggregate": aggregate, "attention_scale": 0.0}
        batches = [{**z, "text": Tokens(repeated, mask)} for mask in (once, twice)]
        values = [value_and_gradient("gloria_local", batch, 2.0, options)[0] for batch in batches]
        assert np.isclose(*values, rtol=1e-5) == same


def test_padding_order_absence_and_extremes(rng):
    check_edges("gloria_local", *token_batch(rng), rng)


def test_accepts_half_precision(rng):
    z, present = token_batch(rng)
    check_half_precision("gloria_local", z, present=present)


def test_wrong_options_are_named(rng):
    z, _ = token_batch(rng)
    with pytest.raises(UserError, match="aggregate 'max'"):
        get("gloria_local", aggregate="max")(z, logit_scale=1.0)
