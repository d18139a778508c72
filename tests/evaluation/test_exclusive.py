"""A probe of exclusive classes uses the examples of exactly one class, and says how many it leaves out."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from medjax.errors import UserError
from medjax.evaluation.exclusive import classes_probe, one_class
from medjax.evaluation.probe import Features
from medjax.evaluation.recipes import RECIPES

NAMES = ("other", "a", "b", "c")


def split(rng, n, direction) -> Features:
    x = rng.normal(size=(n, 4)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[(x @ direction).argmax(1)]
    return Features(x, np.concatenate([np.zeros((n, 1), np.float32), labels], axis=1), np.arange(n) // 2)


@pytest.fixture
def splits(rng):
    direction = rng.normal(size=(4, 3))
    return {k: split(rng, n, direction) for k, n in (("train", 200), ("validation", 60), ("test", 80))}


def test_examples_of_two_classes_of_none_and_of_unknown_ones_are_left_out(splits):
    labels = splits["test"].labels.copy()
    labels[0, 1:], labels[1, 1:], labels[2, 1:] = (1, 1, 0), 0, (1, np.nan, 0)
    kept = one_class(Features(splits["test"].x, labels, splits["test"].patients), [1, 2, 3])
    np.testing.assert_array_equal(np.isnan(kept.labels[:, 0]), np.arange(80) < 3)
    np.testing.assert_array_equal(kept.labels[3:], labels[3:, 1:])


@pytest.mark.parametrize("recipe", ["newton", "knn", "sgd"])
def test_the_scores_are_of_the_examples_of_one_class(splits, recipe):
    labels = splits["test"].labels.copy()
    labels[:5, 1:] = np.nan
    tested = {**splits, "test": Features(splits["test"].x, labels, splits["test"].patients)}
    result = classes_probe(tested, NAMES, ("a", "b", "c"), RECIPES[recipe])
    fitted = RECIPES[recipe].fit(
        RECIPES[recipe].normalised({k: s.x for k, s in splits.items()}),
        {k: splits[k].labels[:, 1:] for k in ("train", "validation")},
        True,
    )
    truth, found = labels[5:, 1:].argmax(1), fitted.scores["test"][5:].argmax(1)
    assert result.scores["macro_f1"].value == pytest.approx(f1_score(truth, found, average="macro"))
    assert result.scores["accuracy"].value > 0.8 > 0.6 > result.chance["accuracy"]
    assert result.chance["balanced_accuracy"] == pytest.approx(1 / 3) and result.chance["mcc"] == 0
    assert result.left_out == {"train": 0, "validation": 0, "test": 5}
    assert sum(result.counts.values()) == 75


def test_a_class_without_training_examples_is_an_error(splits):
    with pytest.raises(UserError, match="the training split has no example of other"):
        classes_probe(splits, NAMES, ("other", "a"), RECIPES["newton"])
