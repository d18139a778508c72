"""Metrics equal their definitions, by hand, by brute force and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from medjax.evaluation import metrics


def once(n: int) -> np.ndarray:
    return np.ones((1, n))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auroc_equals_scikit_learn_with_ties_and_weights(rng, levels):
    n = 80
    scores = rng.integers(0, levels, n).astype(float)
    labels = rng.random(n) < 0.4
    weights = np.concatenate([once(n), rng.integers(0, 4, (20, n))])
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    # Sums of small integers in float64: exact up to the last division.
    np.testing.assert_allclose(metrics.auroc(scores, labels, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_average_precision_equals_scikit_learn_with_ties_and_weights(rng, levels):
    scores, labels = rng.integers(0, levels, 80).astype(float), rng.random(80) < 0.4
    weights = np.concatenate([once(80), rng.integers(0, 4, (20, 80))])
    expected = [average_precision_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(metrics.average_precision(scores, labels, weights), expected, rtol=1e-12)
    assert np.isnan(metrics.average_precision(scores, np.zeros(80, bool), once(80)))
    assert np.isnan(metrics.average_precision(scores[:0], labels[:0], weights[:, :0])).all()


def test_auroc_is_the_share_of_pairs_in_order(rng):
    scores, labels = rng.integers(0, 9, 40), rng.random(40) < 0.5
    pairs = scores[labels][:, None] - scores[~labels][None]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    np.testing.assert_allclose(metrics.auroc(scores, labels, once(40))[0], expected, rtol=1e-12)


def test_auroc_of_extremes():
    labels = np.array([False, False, True, True])
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.auroc(scores, labels, once(4))[0] == 1
    assert metrics.auroc(-scores, labels, once(4))[0] == 0
    assert metrics.auroc(np.zeros(4), labels, once(4))[0] == 0.5


def test_auroc_without_a_class_is_nan_in_that_replicate_alone():
    weights = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 0], [0, 1, 1]])
    got = metrics.auroc(np.array([0.1, 0.5, 0.9]), np.array([False, False, True]), weights)
    np.testing.assert_array_equal(got, [1, np.nan, np.nan, 1])


def test_a_weight_of_two_is_the_example_twice(rng):
    scores, labels = rng.normal(size=30), rng.random(30) < 0.5
    counts = rng.integers(0, 3, 30)
    twice = np.repeat(np.arange(30), counts)
    got = metrics.auroc(scores, labels, counts[None])
    np.testing.assert_allclose(got, metrics.auroc(scores[twice], labels[twice], once(len(twice))), rtol=1e-12)


def test_ranks_by_hand():
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.5, 0.5, 0.5], [0.2, 0.8, 0.5]])
    relevant = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]], bool)
    # Third: level with two wrong ones, each half a place. Fourth: the better of two right answers counts.
    np.testing.assert_array_equal(metrics.ranks(scores, relevant), [1, 3, 2, 2])


def test_other_right_answers_do_not_push_down():
    scores = np.array([[0.9, 0.8, 0.7, 0.1]])
    assert metrics.ranks(scores, np.array([[True, True, True, False]]))[0] == 1


def test_ranks_do_not_depend_on_the_order_of_candidates(rng):
    scores, relevant = rng.integers(0, 5, (20, 12)), rng.random((20, 12)) < 0.3
    relevant[:, 0] = True
    order = rng.permutation(12)
    np.testing.assert_array_equal(metrics.ranks(scores, relevant), metrics.ranks(scores[:, order], relevant[:, order]))


def test_recall_counts_the_weight_of_queries_within_the_cut():
    ranks = np.array([1.0, 2.0, 5.5, 9.0])
    weights = np.array([[1, 1, 1, 1], [0, 0, 3, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(metrics.recall_at(ranks, 5, weights), [0.5, 0.0, np.nan])
    np.testing.assert_array_equal(metrics.recall_at(ranks, 6, weights), [0.75, 0.75, np.nan])


def test_weighted_median_is_the_lower_median_of_the_repeated_values(rng):
    values = rng.integers(0, 10, 15).astype(float)
    for counts in rng.integers(0, 4, (30, 15)):
        repeated = np.sort(np.repeat(values, counts))
        assert metrics.weighted_median(values, counts[None])[0] == repeated[(len(repeated) - 1) // 2]


@pytest.mark.parametrize("k", [1, 5, 50])
def test_chance_is_what_random_scores_reach(rng, k):
    relevant = np.eye(30, dtype=bool)
    relevant[:10, :10] = True  # a report that ten studies share
    recalls, medians = [], []
    for _ in range(400):
        ranks = metrics.ranks(rng.random(relevant.shape), relevant)
        recalls.append(np.mean(ranks <= k))
        medians.append(ranks)
    # Four standard errors of the mean over 400 draws; exact where it cannot vary.
    tolerance = 4 * np.std(recalls) / 20 + 1e-12
    right = relevant.sum(axis=1)
    assert abs(metrics.chance_recall(right, 30, k) - np.mean(recalls)) <= tolerance
    expected_ranks = np.mean(medians, axis=0)
    assert abs(metrics.chance_median_rank(right, 30) - np.median(expected_ranks)) < 4 * 9 / 20


def test_chance_by_hand():
    one = np.ones(10, int)
    assert metrics.chance_recall(one, 10, 1) == pytest.approx(0.1)
    assert metrics.chance_recall(one, 10, 10) == 1
    assert metrics.chance_recall(np.full(4, 10), 10, 1) == 1
    assert metrics.chance_median_rank(one, 9) == 5


def test_roc_curve_equals_scikit_learn_and_its_area_is_the_auroc(rng):
    scores, labels = rng.integers(0, 12, 60), rng.random(60) < 0.4
    fpr, tpr = metrics.roc_curve(scores, labels)
    expected = sklearn_roc(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected[0], atol=1e-12)
    np.testing.assert_allclose(tpr, expected[1], atol=1e-12)
    np.testing.assert_allclose(np.trapezoid(tpr, fpr), metrics.auroc(scores, labels, once(60))[0], rtol=1e-12)
