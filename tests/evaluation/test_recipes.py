"""Each recipe of a probe against an independent computation, and what settings validation chooses."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from medjax.evaluation import knn as neighbours
from medjax.evaluation import sklearn_recipes
from medjax.evaluation.gradient_recipes import sgd
from medjax.evaluation.recipes import RECIPES

SIZES = {"train": 120, "validation": 50, "test": 40}


@pytest.fixture
def x(rng):
    return {k: rng.normal(size=(n, 5)) for k, n in SIZES.items()}


@pytest.fixture
def labels(rng, x):
    """Two labels, one of them unknown in places; of training and validation alone."""
    direction = rng.normal(size=(5, 2))
    out = {k: (x[k] @ direction + rng.normal(size=(n, 2)) > 0).astype(np.float32) for k, n in SIZES.items()}
    for y in out.values():
        y[::7, 1] = np.nan
    return {k: out[k] for k in ("train", "validation")}


@pytest.fixture
def classes(rng, x):
    """Three classes, one-hot, with unknown rows."""
    direction = rng.normal(size=(5, 3))
    out = {}
    for k in ("train", "validation"):
        out[k] = np.eye(3, dtype=np.float32)[(x[k] @ direction + rng.normal(size=(SIZES[k], 3))).argmax(1)]
        out[k][::5] = np.nan
    return out


def test_lbfgs_minimises_the_regularised_loss_at_the_chosen_strength(x, labels):
    found = RECIPES["lbfgs"].fit(x, labels, False)
    for k in range(2):
        known = ~np.isnan(labels["train"][:, k])
        inputs, y = x["train"][known], labels["train"][known, k].astype(np.float64)
        strength = found.chosen[k]["C"]

        def loss(w, inputs=inputs, y=y, strength=strength):
            z = inputs @ w[:-1] + w[-1]
            value = strength * np.sum(np.logaddexp(0, z) - y * z) + w[:-1] @ w[:-1] / 2
            return value, np.r_[
                strength * inputs.T @ (1 / (1 + np.exp(-z)) - y) + w[:-1], strength * np.sum(1 / (1 + np.exp(-z)) - y)
            ]

        w = minimize(loss, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-9}).x
        np.testing.assert_allclose(found.scores["test"][:, k], x["test"] @ w[:-1] + w[-1], rtol=0.01, atol=0.01)


def test_more_features_than_examples_make_no_difference_but_time(rng, labels):
    wide = {k: rng.normal(size=(n, 200)) for k, n in SIZES.items()}
    found = RECIPES["newton"].fit(wide, labels, False)
    strength = found.chosen[0]["C"]
    model = LogisticRegression(C=strength, solver="newton-cholesky").fit(wide["train"], labels["train"][:, 0])
    np.testing.assert_allclose(found.scores["test"][:, 0], model.decision_function(wide["test"]), rtol=1e-4, atol=1e-5)


def test_the_search_halves_the_interval_around_the_peak():
    asked = []

    def value_of(exponent: float) -> float:
        asked.append(exponent)
        return -abs(exponent - 2.6)

    assert sklearn_recipes.halving_search(value_of) == 2.625
    assert asked[:7] == [-6, -4, -2, 0, 2, 4, 6]
    assert sklearn_recipes.halving_search(lambda e: e) == 6.0
    assert sklearn_recipes.halving_search(lambda e: 0.0) == -6.0  # nothing to choose by: the strongest


def test_newton_tells_exclusive_classes_apart_as_scikit_learn_does(x, classes):
    found = RECIPES["newton"].fit(x, classes, True)
    known = {k: ~np.isnan(y[:, 0]) for k, y in classes.items()}
    truth = {k: classes[k][known[k]].argmax(1) for k in classes}

    def fit(strength):
        model = LogisticRegression(C=strength, solver="newton-cholesky").fit(x["train"][known["train"]], truth["train"])
        return model, balanced_accuracy_score(truth["validation"], model.predict(x["validation"][known["validation"]]))

    best = max(sklearn_recipes.STRENGTHS, key=lambda c: fit(c)[1])
    assert found.chosen == [{"C": best}]
    np.testing.assert_allclose(found.scores["test"], fit(best)[0].predict_proba(x["test"]), atol=1e-6)


def momentum_sgd(inputs, y, exclusive, rate, steps):
    """NumPy in float64: the whole batch, momentum 0.9, cosine to zero."""
    known = ~np.isnan(y)
    target, w, b = np.where(known, y, 0.0), np.zeros((inputs.shape[1], y.shape[1])), np.zeros(y.shape[1])
    moving = [0.0, 0.0]
    for step in range(steps):
        z = inputs @ w + b
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True) if exclusive else 1 / (1 + np.exp(-z))
        slope = (p - target) * known / known.sum(0)
        moving = [0.9 * m + g for m, g in zip(moving, (inputs.T @ slope, slope.sum(0)), strict=True)]
        now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        w, b = w - now * moving[0], b - now * moving[1]
    return w, b


@pytest.mark.parametrize("exclusive", [False, True])
def test_sgd_of_whole_batches_is_gradient_descent(x, labels, classes, exclusive):
    y = classes if exclusive else labels
    found = sgd(x, y, exclusive, rates=(0.3,), epochs=30, batch=1000)
    w, b = momentum_sgd(x["train"], y["train"].astype(np.float64), exclusive, 0.3, 30)
    np.testing.assert_allclose(found.scores["test"], x["test"] @ w + b, rtol=0, atol=1e-4)  # float32 of 30 steps


def test_sgd_chooses_the_rate_of_each_label_on_validation_and_repeats_itself(x, labels):
    rates = (1e-4, 0.1)
    alone = [sgd(x, labels, rates=(r,), epochs=20, batch=32) for r in rates]
    found, again = (sgd(x, labels, rates=rates, epochs=20, batch=32) for _ in range(2))
    np.testing.assert_array_equal(found.scores["test"], again.scores["test"])
    for k in range(2):
        known = ~np.isnan(labels["validation"][:, k])
        truth = labels["validation"][known, k]
        best = int(np.argmax([roc_auc_score(truth, f.scores["validation"][known, k]) for f in alone]))
        assert found.chosen[k] == {"learning_rate": rates[best]}
        np.testing.assert_allclose(found.scores["test"][:, k], alone[best].scores["test"][:, k], atol=1e-4)
    other = sgd(x, labels, rates=rates, epochs=20, batch=32, seed=1)
    assert np.abs(other.scores["test"] - found.scores["test"]).max() > 1e-4


@pytest.mark.parametrize("k", [5, 20])
def test_knn_is_that_of_scikit_learn(x, labels, monkeypatch, k):
    monkeypatch.setattr(neighbours, "NEIGHBOURS", (k,))
    unit = RECIPES["knn"].normalised(x)
    found = RECIPES["knn"].fit(unit, labels, False)
    assert found.chosen == [{"k": k}] * 2
    for c in range(2):
        known = ~np.isnan(labels["train"][:, c])
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
        model.fit(x["train"][known], labels["train"][known, c])
        for split in ("validation", "test"):
            np.testing.assert_allclose(found.scores[split][:, c], model.predict_proba(x[split])[:, 1], atol=1e-9)


def test_knn_chooses_k_on_validation_among_those_that_there_are(x, labels, classes):
    unit = RECIPES["knn"].normalised(x)
    known = ~np.isnan(labels["train"][:, 1])
    votes = neighbours.votes(unit["validation"], unit["train"][known], labels["train"][known, 1:].astype(np.float64))
    assert list(votes) == [5, 10, 20, 50, 100]  # 102 examples are known
    seen = ~np.isnan(labels["validation"][:, 1])
    by_k = {k: roc_auc_score(labels["validation"][seen, 1], v[seen, 0]) for k, v in votes.items()}
    assert by_k[RECIPES["knn"].fit(unit, labels, False).chosen[1]["k"]] == pytest.approx(max(by_k.values()))
    found = RECIPES["knn"].fit(unit, classes, True)
    np.testing.assert_allclose(found.scores["test"].sum(1), 1.0)
    assert len(found.chosen) == 1
    few = RECIPES["knn"].fit({**unit, "train": unit["train"][:3]}, {**labels, "train": labels["train"][:3]}, False)
    assert few.chosen[0] == {"k": 3}


@pytest.mark.parametrize(("name", "least"), [("mlp", 0.85), ("newton", 0.0)])
def test_only_what_is_not_linear_finds_an_exclusive_or(rng, name, least):
    sizes = {"train": 400, "validation": 200, "test": 200}
    x = {k: rng.normal(size=(n, 3)) for k, n in sizes.items()}
    y = {k: (v[:, :1] * v[:, 1:2] > 0).astype(np.float32) for k, v in x.items()}
    found = RECIPES[name].fit(x, {k: y[k] for k in ("train", "validation")}, False)
    area = roc_auc_score(y["test"][:, 0], found.scores["test"][:, 0])
    assert area > least if least else area < 0.65


def test_features_are_normalised_as_the_recipe_says(x):
    standard, unit = (RECIPES[k].normalised(x) for k in ("newton", "knn"))
    np.testing.assert_allclose(standard["test"], (x["test"] - x["train"].mean(0)) / x["train"].std(0))
    np.testing.assert_allclose(np.linalg.norm(unit["test"], axis=1), 1.0)
    zero = RECIPES["knn"].normalised({"train": np.zeros((2, 3))})
    np.testing.assert_array_equal(zero["train"], 0.0)
