"""Thresholds against an exhaustive search, rates against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from medjax.evaluation.operating_points import choose, operating_points, rates

N = 60


@pytest.fixture
def scored(rng):
    """Scores with ties, and labels that go with them."""
    scores = rng.integers(0, 25, N) / 10
    return scores, rng.random(N) < scores / 2.5


def test_thresholds_are_the_best_of_all(scored):
    scores, labels = scored
    found = choose(*scored, 0.8)
    candidates = np.unique(scores)[::-1]

    def best(value):
        return max(candidates, key=lambda t: round(value(scores >= t), 12))

    assert found["youden"] == best(lambda c: sk.recall_score(labels, c) + sk.recall_score(~labels, ~c))
    assert found["max_f1"] == best(lambda c: sk.f1_score(labels, c))
    enough = [t for t in candidates if sk.recall_score(labels, scores >= t) >= 0.8]
    assert found["sensitivity"] == max(enough)


def test_all_positives_can_be_asked_for(scored):
    scores, labels = scored
    assert choose(*scored, 1.0)["sensitivity"] == scores[labels].min()


def test_rates_are_those_of_scikit_learn_also_of_repeated_examples(rng, scored):
    scores, labels = scored
    called, times = scores >= 1.0, rng.integers(0, 3, (2, N))
    found = rates(called, labels, times.astype(float))
    for r in range(2):
        y, c = np.repeat(labels, times[r]), np.repeat(called, times[r])
        expected = {
            "sensitivity": sk.recall_score(y, c),
            "specificity": sk.recall_score(~y, ~c),
            "ppv": sk.precision_score(y, c),
            "npv": sk.precision_score(~y, ~c),
            "f1": sk.f1_score(y, c),
            "balanced_accuracy": sk.balanced_accuracy_score(y, c),
        }
        assert {k: v[r] for k, v in found.items()} == pytest.approx(expected, rel=1e-12)


def test_a_rate_of_nothing_is_unknown():
    found = rates(np.zeros(3, bool), np.array([True, False, False]), np.ones((1, 3)))
    assert np.isnan(found["ppv"][0]) and found["sensitivity"][0] == 0 and found["f1"][0] == 0


def test_thresholds_come_from_validation_and_never_from_the_test_split(scored):
    scores, labels = scored
    test = -scores, labels  # turned round, so that its own best threshold is another
    points = {p.how: p for p in operating_points(scored, test, np.ones((1, N)), 0.8)}
    for how, threshold in choose(*scored, 0.8).items():
        assert points[how].threshold == threshold
        assert points[how].rates["sensitivity"].value == np.mean(test[0][labels] >= threshold)
