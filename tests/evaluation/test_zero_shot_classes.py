"""Classes that exclude each other, against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from medjax.evaluation.calibration import bin_of
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.prompt_rules import RULES
from medjax.evaluation.zero_shot_classes import classify

N, CLASSES = 90, ("a", "b", "c")
AXES = [np.eye(4, dtype=np.float32)[i : i + 1] for i in range(3)]


def scorer(queries, candidates, target, present):
    return 5 * queries["image"] @ candidates.T


@pytest.fixture
def table(rng):
    """Rows 0 to 9 have two classes, 10 to 19 none, 20 to 24 an unknown one, 25 to 29 no picture."""
    truth = rng.integers(0, 3, N)
    labels = np.eye(4, dtype=np.float32)[truth]
    image = labels + 0.7 * rng.normal(size=(N, 4)).astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    labels[:10, 0] = labels[:10, 1] = 1
    labels[10:20] = 0
    labels[20:25, 2] = np.nan
    there = {"image": ~np.isin(np.arange(N), np.arange(25, 30))}
    names = (*CLASSES, "other")
    return EmbeddingTable({"image": image}, there, np.arange(N) // 2, np.arange(N), labels, names, np.arange(N))


def test_scores_are_those_of_scikit_learn_on_rows_of_exactly_one_class(table):
    found = classify("kind", CLASSES, {"test": table}, AXES, scorer, RULES["clip"], 20)
    truth = table.labels[30:, :3].argmax(1)
    called = table.embeddings["image"][30:, :3].argmax(1)
    assert found.left_out == 30 and sum(found.counts.values()) == 60
    expected = {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "macro_f1": sk.f1_score(truth, called, average="macro"),
        "mcc": sk.matthews_corrcoef(truth, called),
    }
    assert {k: i.value for k, i in found.scores.items()} == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(found.confusion, sk.confusion_matrix(truth, called))
    assert found.chance["accuracy"] == pytest.approx(1 / 3)
    assert found.frequent["accuracy"] == pytest.approx(np.bincount(truth).max() / 60)
    assert found.temperature is None and found.ece is None


def test_the_temperature_comes_from_validation_and_the_error_from_the_split_that_is_scored(table, rng):
    validation = replace(table, embeddings={"image": rng.permutation(table.embeddings["image"])})
    tables = {"test": table, "validation": validation}
    found = classify("kind", CLASSES, tables, AXES, scorer, RULES["difference"], 20)
    assert found.temperature > 3  # pairs torn apart: next to no certainty is right
    p = softmax(5 * table.embeddings["image"][30:, :3].astype(np.float64) / found.temperature, axis=1)
    right = p.argmax(1) == table.labels[30:, :3].argmax(1)
    bins = bin_of(p.max(1))
    expected = sum(abs((p.max(1) - right)[bins == b].sum()) for b in range(10)) / 60
    assert found.ece.value == pytest.approx(expected, rel=1e-4)


def test_standardising_over_the_set_changes_which_class_is_called(table):
    own = replace(table, embeddings={"image": table.embeddings["image"] + np.float32([0.6, 0, 0, 0])})
    plain, z = (replace(RULES["gloria_max"], zscore=on) for on in (False, True))
    values = [classify("kind", CLASSES, {"test": own}, AXES, scorer, r, 0).scores["accuracy"].value for r in (plain, z)]
    assert values[1] > values[0]


def test_a_group_of_one_class_is_skipped_and_says_why(table):
    table.labels[:] = 0
    table.labels[:, 0] = 1
    found = classify("kind", CLASSES, {"test": table}, AXES, scorer, RULES["cosine"], 5)
    assert not found.scores and found.skipped.startswith("fewer than two")
    assert found.as_dict()["skipped"]
