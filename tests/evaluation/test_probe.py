"""Linear probes find what is linear, nothing in noise, and never look at test labels to choose."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from medjax.data import DataConfig, Dataset
from medjax.evaluation import sklearn_recipes
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import Features, joined_features, linear_probe, raw_features


def split(rng, n, direction, labels=None) -> Features:
    x = rng.normal(size=(n, 6)).astype(np.float32)
    y = (x @ direction > 0).astype(np.float32) if labels is None else labels
    return Features(x, y, np.arange(n) // 2)


@pytest.fixture
def planted(rng):
    direction = rng.normal(size=(6, 1))
    return {name: split(rng, n, direction) for name, n in (("train", 200), ("validation", 60), ("test", 100))}


def test_a_planted_direction_is_recovered(planted):
    result = linear_probe(planted, ("sick",))
    assert result.auroc["sick"].value > 0.97 and result.skipped == {}
    assert result.macro.value == result.auroc["sick"].value
    assert result.macro_auprc.value == result.auprc["sick"].value > 0.95
    assert result.validation["sick"] > 0.97 and result.chosen["sick"]["C"] in sklearn_recipes.STRENGTHS


def test_noise_gives_a_half(rng):
    values = []
    for _ in range(8):
        noise = {
            name: split(rng, n, None, (rng.random((n, 1)) < 0.5).astype(np.float32))
            for name, n in (("train", 200), ("validation", 60), ("test", 100))
        }
        values.append(linear_probe(noise, ("sick",)).auroc["sick"].value)
    # 800 test examples: four standard errors of 0.02.
    assert np.mean(values) == pytest.approx(0.5, abs=0.082)


def test_test_labels_choose_nothing(planted, rng, monkeypatch):
    from medjax.evaluation import probe

    scores = []
    original = probe.metrics.auroc

    def spy(found, truth, weights):
        scores.append(np.asarray(found).copy())
        return original(found, truth, weights)

    monkeypatch.setattr(probe.metrics, "auroc", spy)
    linear_probe(planted, ("sick",))
    first, scores = scores[-1], []
    test = planted["test"]
    shuffled = Features(test.x, rng.permutation(test.labels), test.patients)
    linear_probe({**planted, "test": shuffled}, ("sick",))
    np.testing.assert_array_equal(scores[-1], first)


def test_the_strength_is_the_one_that_does_best_on_validation(rng, monkeypatch):
    # Training labels are noisy and the last two splits follow opposite directions: each would choose another strength.
    direction = rng.normal(size=(6, 1))
    x = {k: rng.normal(size=(n, 6)).astype(np.float32) for k, n in (("train", 60), ("validation", 60), ("test", 60))}
    y = {k: (v @ direction * {"test": -1}.get(k, 1) + 2 * rng.normal(size=(60, 1)) > 0) for k, v in x.items()}
    splits = {k: Features(x[k], y[k].astype(np.float32), np.arange(60)) for k in x}
    scaler = StandardScaler().fit(x["train"])

    def fit(strength, name):
        model = LogisticRegression(C=strength, solver="newton-cholesky").fit(
            scaler.transform(x["train"]), splits["train"].labels[:, 0]
        )
        return roc_auc_score(y[name][:, 0], model.decision_function(scaler.transform(x[name])))

    strengths = (1e-3, 10.0)
    for order in (strengths, strengths[::-1]):
        monkeypatch.setattr(sklearn_recipes, "STRENGTHS", order)
        best = max(order, key=lambda c: fit(c, "validation"))
        got = linear_probe(splits, ("sick",)).auroc["sick"].value
        assert got == pytest.approx(fit(best, "test"), abs=2.5e-3)  # converged solvers may differ in two of 896 pairs
    assert fit(strengths[0], "validation") != fit(strengths[1], "validation")
    assert abs(fit(strengths[0], "test") - fit(strengths[1], "test")) > 5e-3


def test_scale_and_offset_of_features_do_not_matter(planted):
    moved = {k: Features(s.x * [1, 10, 100, 0.1, 1, 1] + 5, s.labels, s.patients) for k, s in planted.items()}
    a, b = (linear_probe(p, ("sick",)).auroc["sick"].value for p in (planted, moved))
    assert a == pytest.approx(b, abs=2e-3)  # standardised float32 features differ in their last digits


def test_unknown_labels_are_left_out(planted):
    labels = planted["train"].labels.copy()
    labels[:100] = np.nan
    some = {**planted, "train": Features(planted["train"].x, labels, planted["train"].patients)}
    assert linear_probe(some, ("sick",)).auroc["sick"].value > 0.93


@pytest.mark.parametrize("where", ["train", "test"])
def test_a_label_with_one_class_is_skipped_and_says_where(planted, where):
    s = planted[where]
    result = linear_probe({**planted, where: Features(s.x, np.zeros_like(s.labels), s.patients)}, ("sick",))
    assert result.macro is None and result.skipped == {"sick": f"the {where} split has one class only"}


def test_a_validation_split_with_one_class_takes_the_strongest_regularisation(planted):
    s = planted["validation"]
    one = {**planted, "validation": Features(s.x, np.zeros_like(s.labels), s.patients)}
    assert linear_probe(one, ("sick",)).auroc["sick"].value > 0.9


def test_joined_features_are_zero_where_absent_and_say_so(rng):
    n = 10
    embeddings = {m: rng.normal(size=(n, 3)).astype(np.float32) for m in ("image", "ecg")}
    present = {"image": np.arange(n) < 7, "ecg": np.arange(n) > 2}
    labels = np.zeros((n, 1), np.float32)
    table = EmbeddingTable(embeddings, present, np.arange(n), np.arange(n), labels, ("sick",), np.arange(n))
    x = joined_features(table, ("image", "ecg")).x
    assert x.shape == (n, 8)
    np.testing.assert_array_equal(joined_features(table, ("image", "ecg"), flags=False).x, x[:, :6])
    np.testing.assert_array_equal(x[:7, :3], embeddings["image"][:7])
    assert not x[7:, :3].any() and not x[:3, 3:6].any()
    np.testing.assert_array_equal(x[:, 6:], np.stack([present["image"], present["ecg"]], axis=1))


@pytest.fixture(scope="module")
def batches(phantom_dir):
    config = DataConfig(dir=str(phantom_dir), modalities={"image": dict(size=16), "labs": {}})
    dataset = Dataset.open(config)
    return {split: list(dataset.evaluation(split, 9)) for split in ("train", "validation", "test")}


def test_raw_features_hold_valid_examples_alone_in_order(batches):
    for name, features in raw_features(batches, ("image", "labs")).items():
        valid = np.concatenate([b.valid for b in batches[name]])
        labels = np.concatenate([b.targets["labels"] for b in batches[name]])
        assert len(features.x) == len(features.patients) == valid.sum()
        np.testing.assert_array_equal(features.labels, labels[valid])
        present = np.concatenate([b.items["image"].present for b in batches[name]])
        np.testing.assert_array_equal(features.x[:, -2] == 1, present[valid])


def test_raw_features_are_fitted_on_the_training_split_alone(batches):
    whole = raw_features(batches, ("image",))
    other = raw_features({**batches, "test": batches["test"][:1]}, ("image",))
    np.testing.assert_array_equal(other["train"].x, whole["train"].x)
    # One row more or less changes the order of float32 sums.
    n = len(other["test"].x)
    np.testing.assert_allclose(other["test"].x, whole["test"].x[:n], atol=1e-3)
