"""Scores of exclusive classes are those of scikit-learn in every replicate."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

from medjax.evaluation import multiclass

REFERENCE = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "macro_f1": lambda *a, **k: f1_score(*a, average="macro", zero_division=0, **k),
    "mcc": matthews_corrcoef,
}


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_scores_are_those_of_scikit_learn(rng):
    truth, found = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    found[:30] = truth[:30]
    weights = rng.integers(0, 3, (6, 60)).astype(float)
    weights[5, truth == 2] = 0  # a replicate without one class
    table = multiclass.confusion(found, truth, 4, weights)
    assert set(REFERENCE) == set(multiclass.SCORES)
    for name, reference in REFERENCE.items():
        got = multiclass.SCORES[name](table)
        for value, w in zip(got, weights, strict=True):
            at = np.repeat(np.arange(60), w.astype(int))
            assert value == pytest.approx(reference(truth[at], found[at]), abs=1e-12), name


def test_one_called_class_has_no_correlation():
    table = multiclass.confusion(np.zeros(4, int), np.array([0, 1, 2, 0]), 3, np.ones((1, 4)))
    assert multiclass.mcc(table)[0] == 0 and multiclass.accuracy(table)[0] == 0.5
