"""Scores of other programs' predictions are those of scikit-learn, and bad rows are named."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from medjax.errors import UserError
from medjax.evaluation.predictions import macro, read_predictions, score_predictions, skipped, threshold


def write(path, scores, labels, **more):
    rows = zip(scores, labels, *more.values(), strict=True)
    lines = [dict(zip(("score/a", "label/a", *more), map(float, r), strict=True)) for r in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def files(tmp_path, rng):
    def make(name, n):
        labels = rng.random(n) < 0.4
        return write(
            tmp_path / name, np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1), labels, patient=np.arange(n) // 2
        )

    return make("test.jsonl", 120), make("validation.jsonl", 80)


def test_scores_are_those_of_scikit_learn(files):
    test, validation = map(read_predictions, files)
    assert test.patients_known and len(np.unique(test.patients)) == 60
    found = {k: v[0] for k, v in score_predictions(test, validation)["a"].items()}
    scores, labels = test.scores["a"], test.labels["a"]
    cuts = np.unique(validation.scores["a"])
    best = max(cuts, key=lambda t: (reference.f1_score(validation.labels["a"], validation.scores["a"] >= t), t))
    assert threshold(validation, "a") == best
    called = scores >= best
    np.testing.assert_allclose(found["auroc"], reference.roc_auc_score(labels, scores))
    np.testing.assert_allclose(found["auprc"], reference.average_precision_score(labels, scores))
    np.testing.assert_allclose(found["f1"], reference.f1_score(labels, called))
    np.testing.assert_allclose(found["balanced_accuracy"], reference.balanced_accuracy_score(labels, called))


def test_without_validation_or_probabilities_their_metrics_are_left_out(tmp_path):
    given = read_predictions(write(tmp_path / "a.jsonl", [-1, 2, 3, 0], [0, 1, 1, 0]))
    assert set(score_predictions(given, None)["a"]) == {"auroc", "auprc"} and not given.patients_known


def test_a_label_of_one_class_is_skipped(tmp_path):
    given = read_predictions(write(tmp_path / "a.jsonl", [0.1, 0.2], [1, 1]))
    assert score_predictions(given, None) == {} and skipped(given) == {"a": "no negative example"}


def test_npz_and_macro(tmp_path):
    columns = {"score/a": [0.1, 0.9], "label/a": [0, 1], "score/b": [0.9, 0.1], "label/b": [0, 1]}
    np.savez(tmp_path / "a.npz", **columns)
    assert macro(score_predictions(read_predictions(tmp_path / "a.npz"), None))["auroc"][0] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score/a,label/a\n0.1,0\nx,1\n", "row 2: column 'score/a' holds 'x'"),
        ("score/a,label/a\n,0\n", "row 1: column 'score/a' holds ''; every example needs a finite score"),
        ("score/a,label/a\n0.1,0\n0.2,3\n", "row 2: label column 'label/a' holds '3'"),
        ("score/a,label/b\n0.1,0\n", "has no column"),
        ("a,b\n0.1,0\n", "has no column score/NAME"),
    ],
)
def test_bad_input_names_file_and_row(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_predictions(tmp_path / "bad.csv")
    assert message in str(error.value) and "bad.csv" in str(error.value)
