"""Scores of maps against regions equal values worked out by hand, and scikit-learn's where it has them."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from medjax.evaluation import grounding

EXACT = dict(rtol=1e-12)
NAN = np.nan
MAP = np.array([[0.9, 0.1, 0.0], [0.5, 0.3, NAN]])
INSIDE = np.array([[True, False, False], [True, False, True]])  # the last one was not seen


def test_a_region_is_the_union_of_its_boxes_by_the_middles_of_pixels():
    boxes = np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.3], [0.9, 0.9, 1.0, 1.0]])
    found = grounding.region(boxes, (4, 4))
    expected = np.zeros((4, 4), bool)
    expected[:2, :2] = True
    expected[0, 1:3] = True  # the middle of row 1, .375, lies below .3
    np.testing.assert_array_equal(found, expected)  # the last box holds no middle of a pixel
    np.testing.assert_array_equal(grounding.region(boxes[::-1], (4, 4)), expected)


def test_contrast_to_noise_by_hand():
    # Inside .9 and .5: mean .7, variance .04. Outside .1, 0, .3: mean .4/3, variance .10/3 - (.4/3)^2.
    outside = 0.10 / 3 - (0.4 / 3) ** 2
    expected = (0.7 - 0.4 / 3) / np.sqrt(0.04 + outside)
    np.testing.assert_allclose(grounding.contrast_to_noise(MAP, INSIDE), expected, **EXACT)
    np.testing.assert_allclose(grounding.contrast_to_noise(-MAP, INSIDE), expected, **EXACT)


def test_overlaps_by_hand_and_by_scikit_learn(rng):
    iou, dice = grounding.overlaps(MAP, INSIDE, (0.2, 0.5, 0.95))
    np.testing.assert_allclose(iou, (2 / 3, 1 / 2, 0), **EXACT)  # .5 is not above .5
    np.testing.assert_allclose(dice, (4 / 5, 2 / 3, 0), **EXACT)
    map_, inside = rng.random((8, 9)).round(1), rng.random((8, 9)) < 0.3
    map_[0] = NAN
    thresholds = np.linspace(0, 0.9, 10)
    iou, dice = grounding.overlaps(map_, inside, thresholds)
    for i, t in enumerate(thresholds):
        seen, marked = inside[1:].ravel(), map_[1:].ravel() > t
        np.testing.assert_allclose(iou[i], jaccard_score(seen, marked, zero_division=0), **EXACT)
        np.testing.assert_allclose(dice[i], f1_score(seen, marked, zero_division=0), **EXACT)


def test_mean_iou_is_over_the_raw_map():
    # Above .1: .9 .5 .3 (2 of 3); above .2 the same; above .3 and .4: .9 .5 (2 of 2); above .5: .9 (1 of 2).
    np.testing.assert_allclose(grounding.mean_iou(MAP, INSIDE), (2 / 3 + 2 / 3 + 1 + 1 + 1 / 2) / 5, **EXACT)


def test_pointing_takes_the_highest_seen_pixel_and_shares_ties():
    assert grounding.pointing(MAP, INSIDE) == 1.0
    assert grounding.pointing(-MAP, INSIDE) == 0.0
    flat = np.where(np.isnan(MAP), NAN, 1.0)
    np.testing.assert_allclose(grounding.pointing(flat, INSIDE), 2 / 5, **EXACT)
    np.testing.assert_allclose(grounding.pointing_chance(MAP, INSIDE), 2 / 5, **EXACT)


def test_chance_is_what_random_maps_score(rng):
    hits = [grounding.pointing(np.where(np.isnan(MAP), NAN, rng.random(MAP.shape)), INSIDE) for _ in range(2000)]
    assert abs(np.mean(hits) - grounding.pointing_chance(MAP, INSIDE)) < 4 * np.sqrt(0.24 / 2000)


def test_pixel_auroc_equals_scikit_learn_with_ties(rng):
    map_, inside = rng.integers(0, 5, (7, 8)).astype(float), rng.random((7, 8)) < 0.3
    map_[:2] = NAN
    expected = roc_auc_score(inside[2:].ravel(), map_[2:].ravel())
    np.testing.assert_allclose(grounding.pixel_auroc(map_, inside), expected, **EXACT)


@pytest.mark.parametrize("inside", [np.zeros((2, 3), bool), np.ones((2, 3), bool)])
def test_what_has_no_inside_or_no_outside_has_no_contrast(inside):
    assert np.isnan(grounding.contrast_to_noise(MAP, inside)) and np.isnan(grounding.pixel_auroc(MAP, inside))


def test_a_picture_of_which_nothing_was_seen_has_no_score():
    unseen = np.full((2, 3), NAN)
    for measure in (grounding.pointing, grounding.pointing_chance, grounding.mean_iou, grounding.pixel_auroc):
        assert np.isnan(measure(unseen, INSIDE))
    assert np.isnan(grounding.scaled(unseen)).all()


def test_scaling_leaves_what_was_not_seen_and_flattens_what_is_constant():
    np.testing.assert_allclose(grounding.scaled(MAP * 4 - 1), np.where(np.isnan(MAP), NAN, MAP / 0.9), rtol=1e-9)
    np.testing.assert_array_equal(grounding.scaled(np.array([[2.0, NAN]])), [[0.0, NAN]])


def test_the_threshold_is_best_on_the_mean_of_the_maps_it_is_chosen_on():
    thresholds = np.array([0.1, 0.2, 0.3])
    dice = np.array([[0.2, 0.6, 0.6], [0.8, 0.4, 0.4], [NAN, NAN, NAN]])
    assert grounding.best_threshold(dice, thresholds) == 0.1  # .5 each: the lowest of equals
    assert grounding.best_threshold(dice[:1], thresholds) == 0.2
    assert np.isnan(grounding.best_threshold(dice[2:], thresholds))


def test_the_centre_prior_is_highest_in_the_middle_and_even():
    prior = grounding.centre_prior((5, 8))
    np.testing.assert_allclose(prior, prior[::-1, ::-1], **EXACT)
    assert np.unravel_index(np.argmax(prior), prior.shape)[0] == 2 and prior[0, 0] == prior.min()
