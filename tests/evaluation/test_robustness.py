"""Balanced errors and their ratios to a baseline's, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medjax.evaluation.robustness import Curve, balanced_error, best_threshold, mean_over, relative


def test_balanced_error_is_that_of_scikit_learn(rng):
    scores, labels = rng.normal(size=60), rng.random(60) < 0.3
    weights = rng.integers(0, 4, (5, 60)).astype(float)
    found = balanced_error(scores, labels, 0.2, weights)
    expected = [1 - balanced_accuracy_score(labels, scores > 0.2, sample_weight=w) for w in weights]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(balanced_error(scores, labels, 0.2, labels[None].astype(float)))  # no weight on the negatives


def test_the_threshold_has_the_least_error_of_all(rng):
    for ties in (False, True):
        scores = rng.normal(size=40).round(1) if ties else rng.normal(size=40)
        labels = rng.random(40) < 1 / (1 + np.exp(-2 * scores))
        one = np.ones((1, 40))
        tried = np.concatenate([scores - 1e-6, scores + 1e-6])
        least = min(balanced_error(scores, labels, t, one)[0] for t in tried)
        np.testing.assert_allclose(balanced_error(scores, labels, best_threshold(scores, labels), one)[0], least)


def test_a_model_is_1_relative_to_itself_and_its_mce_100():
    errors = {"noise": [0.2, 0.3, 0.4], "blur": [0.11, 0.1, 0.1]}
    found = relative(errors, 0.1, errors, 0.1)
    assert found.be == {"noise": 1.0, "blur": 1.0} and found.rbe == {"noise": 1.0, "blur": 1.0}
    assert found.mce == 100 and found.mean_rbe == 1
    assert found.flagged == ("blur",)  # whose mean is 0.0033 above the intact error


def test_ratios_by_hand():
    errors = {"noise": [0.2, 0.4], "gamma": [0.3, 0.1], "light": [0.1, 0.1]}
    base = {"noise": [0.4, 0.6], "gamma": [0.198, 0.190], "light": [0.0, 0.0]}
    found = relative(errors, 0.1, base, 0.2)
    assert found.be["noise"] == pytest.approx(0.6) and found.rbe["noise"] == pytest.approx((0.3 - 0.1) / (0.5 - 0.2))
    # As on PneumoniaMNIST-C, where gamma makes the baseline better: a negative ratio that must not be averaged.
    assert found.denominators["gamma"] == pytest.approx(-0.006) and found.rbe["gamma"] < 0
    assert found.flagged == ("gamma",)
    assert found.be["light"] is None and found.rbe["light"] == pytest.approx(0)
    assert found.mean_rbe == pytest.approx((found.rbe["noise"] + found.rbe["light"]) / 2, abs=1e-6)
    assert found.mce == pytest.approx(100 * (found.be["noise"] + found.be["gamma"]) / 2, abs=1e-3)


def test_a_curve_averages_over_its_levels():
    value = {0: np.array([0.9, 0.8]), 1: np.array([0.8, 0.8]), 3: np.array([0.6, 0.7])}
    error = {k: 1 - v for k, v in value.items()}
    curve = Curve("noise", value, error)
    np.testing.assert_allclose(curve.drop, [0.2, 0.05])
    np.testing.assert_allclose(curve.mean_error, [0.3, 0.25])
    assert curve.levels == [1, 3]
    both = mean_over([curve, Curve("blur", {k: v - 0.1 for k, v in value.items()}, error)])
    np.testing.assert_allclose(both.value[3], [0.55, 0.65])
    np.testing.assert_allclose(both.error[1], error[1])
