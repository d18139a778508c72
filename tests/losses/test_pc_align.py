"""PC-Align against its formula in float64: concepts as questions to images, with and without their ids."""

import numpy as np
import pytest
from losses_check import assert_matches
from token_batches import (
    check_edges,
    check_half_precision,
    log_sum,
    present_samples,
    token_batch,
    value_and_gradient,
)

from medjax import losses
from medjax.errors import UserError

SCALARS = {"logit_scale": 5.0, "logit_bias": -2.0}


def concept_batch(rng, concepts=2):
    """A token batch whose concepts have ids, some of them unknown (0) and many repeated."""
    numbers = rng.integers(0, 4, (8, concepts))
    return token_batch(rng, sentences=concepts, group=np.stack([numbers * 7, numbers], -1).astype(np.uint32))


def pc_align(z, scale, bias, present, pooling="max", same_concept="positive") -> float:
    """arXiv 2501.15579: softplus of every concept with every image."""
    here = present_samples(z, present)
    total, count = 0.0, 0
    numbers = np.where(here["text"][:, None] & z["text"].mask, z["text"].group[..., 1], 0)
    for j in np.flatnonzero(here["text"]):
        for c in np.flatnonzero(z["text"].mask[j]):
            count += here["image"][j]
            for i in np.flatnonzero(here["image"]):
                products = scale * z["image"].tokens[i][z["image"].mask[i]] @ z["text"].tokens[j, c]
                score = (products.max() if pooling == "max" else log_sum(products)) + bias
                shared = numbers[j, c] > 0 and numbers[j, c] in numbers[i]
                if i != j and shared and same_concept == "mask":
                    continue
                answer = i == j or (shared and same_concept == "positive")
                total += np.logaddexp(0.0, -score if answer else score)
    return total / max(count, 1)


@pytest.mark.parametrize("same_concept", ["positive", "mask", "ignore"])
def test_value_and_gradient_equal_the_formula(rng, same_concept):
    z, present = concept_batch(rng)
    pooling = "lse" if same_concept == "mask" else "max"

    def oracle(z, scalars, _):
        return pc_align(z, scalars["logit_scale"], scalars["logit_bias"], present, pooling, same_concept)

    options = {"pooling": pooling, "same_concept": same_concept}
    assert_matches("pc_align", options, oracle, z, scalars=SCALARS, present=present)


def texts_asked(z, scale, bias, present) -> float:
    """The released variant: log mean exp over the concepts of a text of their best patches, one question a pair."""
    here = present_samples(z, present)
    total = 0.0
    for i in np.flatnonzero(here["image"]):
        for j in np.flatnonzero(here["text"]):
            x, c = z["image"].tokens[i][z["image"].mask[i]], z["text"].tokens[j][z["text"].mask[j]]
            best = (scale * c @ x.T + bias).max(1)
            score = log_sum(best) - np.log(len(best))
            total += np.logaddexp(0.0, -score if i == j else score)
    return total / (here["image"] & here["text"]).sum()


def test_questions_of_whole_texts_equal_the_formula(rng):
    z, present = token_batch(rng)

    def oracle(z, scalars, _):
        return texts_asked(z, scalars["logit_scale"], scalars["logit_bias"], present)

    options = {"asked": "text", "same_concept": "ignore"}
    assert_matches("pc_align", options, oracle, z, scalars=SCALARS, present=present)


def test_the_same_concept_is_pushed_away_only_without_its_id(rng):
    z, _ = token_batch(rng, rows=2, sentences=1, masked=False)
    z["text"] = z["text"]._replace(group=np.ones((2, 1, 2), np.uint32))
    slopes = {}
    for policy in ("ignore", "mask", "positive"):
        options = {"same_concept": policy}
        _, gradient = value_and_gradient("pc_align", z, 5.0, options, logit_bias=0.0)
        # How the loss changes as concept 0 moves along the best patch of the other image.
        other = z["image"].tokens[1][np.argmax(z["image"].tokens[1] @ z["text"].tokens[0, 0])]
        _, own = value_and_gradient("pc_align", {m: _first(x) for m, x in z.items()}, 5.0, options, logit_bias=0.0)
        slopes[policy] = float((2 * gradient["text"].tokens[0, 0] - own["text"].tokens[0, 0]) @ other)
    assert slopes["ignore"] > 0
    assert abs(slopes["mask"]) < 1e-6
    assert slopes["positive"] < 0


def _first(x):
    return x._replace(tokens=x.tokens[:1], mask=x.mask[:1], group=None if x.group is None else x.group[:1])


def test_one_sample_gives_the_softplus_of_its_best_patch(rng):
    z, _ = token_batch(rng, rows=1, sentences=1, masked=False)
    value, _ = value_and_gradient("pc_align", z, 10.0, {"same_concept": "ignore"}, logit_bias=-10.0)
    best = np.max(z["image"].tokens[0].astype(float) @ z["text"].tokens[0, 0])
    np.testing.assert_allclose(value, np.logaddexp(0.0, -(10 * best - 10)), rtol=1e-6)


def test_padding_order_absence_and_extremes(rng):
    check_edges("pc_align", *concept_batch(rng), rng, logit_bias=-1.0)


def test_accepts_half_precision(rng):
    z, present = concept_batch(rng)
    check_half_precision("pc_align", z, present=present, logit_bias=-1.0)


def test_ids_are_asked_for(rng):
    z, _ = token_batch(rng)
    with pytest.raises(UserError, match=r"pc_align.*Tokens\.group"):
        losses.get("pc_align")(z, logit_scale=1.0, logit_bias=0.0)
    with pytest.raises(UserError, match="same_concept='ignore'"):
        losses.get("pc_align", asked="text")(z, logit_scale=1.0, logit_bias=0.0)
