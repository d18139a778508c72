"""ConVIRT and MoRE: weights, pairs and fixed temperatures on top of InfoNCE."""

import numpy as np
import pytest
from losses_check import assert_matches
from losses_reference import cross_entropy, info_nce, pair, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError


def test_convirt_weighs_image_to_text_three_to_one(rng):
    z, present = unit_rows(rng, 16, 3, ["image", "text"]), some_present(rng, 16, ["image", "text"])

    def reference(z, scalars, _):
        s, allowed, answers = pair(z, scalars["logit_scale"], "image", "text", present)
        return 0.75 * cross_entropy(s, allowed, answers) + 0.25 * cross_entropy(s.T, allowed.T, answers.T)

    assert_matches("convirt", {}, reference, z, scalars={"logit_scale": 10.0}, present=present)


def test_more_pairs_everything_with_the_report_and_nothing_else(rng):
    names = ["ecg", "image", "text"]
    z, present = unit_rows(rng, 8, 3, names), some_present(rng, 8, names)
    pairs = [("text", "ecg"), ("text", "image")]

    def reference(z, scalars, _):
        return info_nce(z, scalars["logit_scale"], present, pairs=pairs, reduction="sum")

    assert_matches("more", {}, reference, z, scalars={"logit_scale": 5.0}, present=present)


def test_mores_other_pairs_are_an_option(rng):
    z = unit_rows(rng, 6, 3, ["ecg", "image", "text"])
    loss = losses.get("more", others=True)(z, logit_scale=5.0).mean()
    np.testing.assert_allclose(loss, info_nce(z, 5.0, reduction="sum"), rtol=1e-6)


def test_published_temperatures_are_fixed():
    assert losses.get("more").scale == losses.Scale(50.0, 100.0, learnable=False)
    assert losses.get("convirt").scale.init == 10.0 and not losses.get("convirt").scale.learnable


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("more", {"anchor": "texts"}, "text"),
        ("more", {"pairs": (("image", "text"),)}, "anchor="),
        ("convirt", {"first_weight": 1.5}, "first_weight"),
    ],
)
def test_wrong_options_are_errors(name, options, word):
    with pytest.raises(UserError, match=word):
        losses.get(name, modalities=("image", "text"), **options)
