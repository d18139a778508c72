"""Rules of zero-shot: each is the published formula, computed here again by hand in float64."""

import dataclasses

import numpy as np
import pytest

from medjax.errors import UserError
from medjax.evaluation.prompt_rules import RULES, check_prompts, mean_embedding, model_scale, set_zscore

N, E = 12, 5


def norm(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def scorer(queries, candidates, target, present):
    """A model of scale 7 (8 for the ECG), with a bias, that adds up its modalities."""
    scale = {"image": 7.0, "ecg": 8.0}
    return sum(scale[m] * present[m][:, None] * (norm(x) @ norm(candidates).T) for m, x in queries.items()) - 3.0


@pytest.fixture
def study(rng):
    """Vectors of no particular length: (queries, present, positive prompts, negative prompts)."""
    queries = {m: rng.normal(size=(N, E)) * 3 for m in ("image", "ecg")}
    present = {"image": np.arange(N) % 4 > 0, "ecg": np.arange(N) % 3 > 0}
    present["image"][0] = True
    return queries, present, rng.normal(size=(3, E)), rng.normal(size=(2, E)) * 2


def score(name, study, **changes):
    queries, present, positive, negative = study
    rule = dataclasses.replace(RULES[name], **changes)
    return rule.pair(*rule.set_scores(queries, present, [positive, negative], scorer).T)


def by_hand(study):
    """For each example its query vector, and the cosines with each prompt."""
    queries, present, positive, negative = study
    x = np.zeros((N, E))
    for i in range(N):
        there = [queries[m][i] / np.linalg.norm(queries[m][i]) for m in queries if present[m][i]]
        mean = np.mean(there, axis=0)
        x[i] = mean / np.linalg.norm(mean)
    return x, x @ norm(positive).T, x @ norm(negative).T


def centre(prompts):
    return norm(norm(prompts).mean(0))


def test_the_query_is_the_mean_direction_of_what_is_there(study):
    np.testing.assert_allclose(mean_embedding(study[0], study[1]), by_hand(study)[0], rtol=1e-12)


def test_an_example_without_any_modality_is_zero(study):
    nothing = {m: np.zeros(N, bool) for m in study[0]}
    assert not mean_embedding(study[0], nothing).any()


def test_chexzero_is_a_softmax_of_two_exponentials_without_temperature(study):
    x = by_hand(study)[0]
    a, b = np.exp(x @ centre(study[2])), np.exp(x @ centre(study[3]))
    np.testing.assert_allclose(score("chexzero", study), a / (a + b), rtol=1e-12)


def test_biovil_takes_the_mean_before_it_normalises(study):
    x = by_hand(study)[0]
    expected = x @ norm(study[2].mean(0)) - x @ norm(study[3].mean(0))
    np.testing.assert_allclose(score("biovil", study), expected, rtol=1e-9)


def test_clip_multiplies_by_the_scale_of_the_model(study):
    x = by_hand(study)[0]
    a, b = np.exp(7.5 * (x @ centre(study[2]))), np.exp(7.5 * (x @ centre(study[3])))
    np.testing.assert_allclose(score("clip", study), a / (a + b), rtol=1e-6)  # the scale is found in float32


def test_gloria_takes_the_largest_or_the_mean_over_positive_prompts(study):
    positive = by_hand(study)[1]
    np.testing.assert_allclose(score("gloria_max", study), positive.max(1), rtol=1e-12)
    np.testing.assert_allclose(score("gloria_mean", study), positive.mean(1), rtol=1e-12)
    z = score("gloria_max", study, zscore=True)
    np.testing.assert_allclose(z, (positive.max(1) - positive.max(1).mean()) / positive.max(1).std(), rtol=1e-9)


def test_merl_is_the_cosine_with_the_only_prompt(study):
    queries, present, positive, negative = study
    one = queries, present, positive[:1], negative
    np.testing.assert_allclose(score("merl", one), by_hand(study)[1][:, 0], rtol=1e-12)
    np.testing.assert_allclose(score("cosine", study), by_hand(study)[0] @ centre(positive), rtol=1e-12)


def test_rules_by_logits_use_the_models_own_scorer(study):
    queries, present, positive, negative = study
    logits = [scorer(queries, p, "text", present).mean(1) for p in (positive, negative)]
    np.testing.assert_allclose(score("difference", study), logits[0] - logits[1], rtol=1e-12)
    a, b = np.exp(logits[0]), np.exp(logits[1])
    np.testing.assert_allclose(score("softmax", study), a / (a + b), rtol=1e-12)


def test_the_margin_of_a_probability_is_its_log_odds(study):
    np.testing.assert_allclose(
        RULES["softmax"].margin(score("softmax", study)), score("difference", study), rtol=1e-9, atol=1e-12
    )
    assert RULES["biovil"].margin(np.float64(0.3)) == 0.3
    assert {k for k, r in RULES.items() if r.log_odds} == {"difference", "softmax", "chexzero", "clip"}


def test_classes_by_clip_are_those_of_the_largest_cosine(study):
    queries, present, positive, _ = study
    rule = RULES["clip"]
    scores = rule.classes(rule.set_scores(queries, present, [p[None] for p in positive], scorer))
    np.testing.assert_allclose(scores, 7.5 * by_hand(study)[1], rtol=1e-6)


def test_the_scale_of_the_model_is_found_through_its_bias(study):
    queries = study[0]
    assert model_scale(scorer, {"image": queries["image"]}) == pytest.approx(7, rel=1e-6)
    with pytest.raises(UserError, match="no logit scale"):
        model_scale(lambda q, c, t, p: np.zeros((1, 2)), queries)


def test_a_set_that_is_empty_has_no_score(study):
    queries, present, positive, _ = study
    for name in ("difference", "biovil"):
        found = RULES[name].set_scores(queries, present, [positive, positive[:0]], scorer)
        assert np.isfinite(found[:, 0]).all() and np.isnan(found[:, 1]).all()


def test_standardising_a_constant_gives_zero():
    assert not set_zscore(np.ones((4, 2))).any()


def test_a_rule_of_one_prompt_refuses_several():
    check_prompts(RULES["merl"], {"a": ("x",)})
    with pytest.raises(UserError, match="takes one positive prompt, and b has several"):
        check_prompts(RULES["merl"], {"a": ("x",), "b": ("x", "y")})
