"""Ridge regression and its scores against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from medjax.evaluation import regression
from medjax.evaluation.probe import Features
from medjax.evaluation.regression import ALPHAS, ridge_probe


@pytest.fixture
def toy(rng):
    w = rng.normal(size=6)
    x = {
        k: rng.normal(2, 3, size=(n, 6)).astype(np.float32)
        for k, n in (("train", 90), ("validation", 40), ("test", 50))
    }
    splits = {k: Features(v, np.zeros((len(v), 0), np.float32), np.arange(len(v)) // 2) for k, v in x.items()}
    targets = {k: (40 + v @ w + 9 * rng.normal(size=len(v))).astype(np.float32) for k, v in x.items()}
    for t in targets.values():
        t[::9] = np.nan
    return splits, targets


def test_all_is_that_of_scikit_learn(toy):
    splits, targets = toy
    known = {k: np.isfinite(t) for k, t in targets.items()}
    y = {k: targets[k][known[k]].astype(np.float64) for k in targets}
    x = {k: splits[k].x[known[k]].astype(np.float64) for k in targets}
    scaler = StandardScaler().fit(x["train"])
    models = [Ridge(alpha=a).fit(scaler.transform(x["train"]), y["train"]) for a in ALPHAS]
    errors = [np.mean((m.predict(scaler.transform(x["validation"])) - y["validation"]) ** 2) for m in models]
    found = models[int(np.argmin(errors))].predict(scaler.transform(x["test"]))
    result = ridge_probe(splits, targets)
    assert result.alpha == ALPHAS[int(np.argmin(errors))] and result.examples == len(found)
    assert result.r2.value == pytest.approx(r2_score(y["test"], found))
    assert result.pearson.value == pytest.approx(pearsonr(y["test"], found).statistic)
    assert result.mae.value == pytest.approx(np.abs(found - y["test"]).mean())
    assert result.mean_mae.value == pytest.approx(np.abs(y["train"].mean() - y["test"]).mean())
    assert result.gain.value == pytest.approx(result.mean_mae.value - result.mae.value)
    assert result.gain.low < result.gain.value < result.gain.high


def test_replicates_are_scores_of_the_resampled_examples(rng):
    found, truth = rng.normal(size=(2, 30))
    weights = rng.integers(0, 3, (5, 30)).astype(float)
    for i, w in enumerate(weights):
        at = np.repeat(np.arange(30), w.astype(int))
        assert regression.r2(found, truth, weights)[i] == pytest.approx(r2_score(truth[at], found[at]))
        assert regression.pearson(found, truth, weights)[i] == pytest.approx(pearsonr(truth[at], found[at]).statistic)


def test_without_validation_values_the_largest_penalty_stands(toy):
    splits, targets = toy
    result = ridge_probe(splits, {**targets, "validation": np.full(40, np.nan, np.float32)})
    assert result.alpha == ALPHAS[-1]


@pytest.mark.parametrize("where", ["train", "test"])
def test_a_split_without_values_says_so(toy, where):
    splits, targets = toy
    constant = {**targets, where: np.full_like(targets[where], 3.0)}
    assert ridge_probe(splits, constant) == f"the {where} split has fewer than two values"
