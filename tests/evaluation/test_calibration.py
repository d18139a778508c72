"""Calibration against scikit-learn and against a likelihood that is searched by brute force."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax
from sklearn.calibration import _SigmoidCalibration, calibration_curve
from sklearn.metrics import brier_score_loss

from medjax.evaluation.calibration import (
    BINS,
    bin_of,
    brier,
    calibrate,
    ece,
    fit_platt,
    fit_temperature,
    reliability,
)

N = 400


@pytest.fixture
def outcome(rng):
    """Log odds that are right, and what came of them."""
    logits = rng.normal(size=N) * 2 - 1
    return logits, rng.random(N) < expit(logits)


def test_platt_scaling_is_that_of_scikit_learn(outcome):
    logits, truth = outcome
    scores = 0.01 * logits + 5  # as small as cosines differ
    reference = _SigmoidCalibration().fit(scores, truth)
    # Both stop at a gradient of about 1e-5 of a mean log likelihood.
    np.testing.assert_allclose(fit_platt(scores, truth)(scores), reference.predict(scores), atol=2e-4)


def test_platt_scaling_of_separable_classes_is_finite():
    platt = fit_platt(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1], bool))
    assert np.isfinite(platt.slope) and platt.slope > 0
    assert 0.5 < platt(np.array([2.5]))[0] < 0.9  # 3/4 is the target of two positives


def test_the_temperature_is_the_most_likely_one(rng, outcome):
    logits, truth = rng.normal(size=(N, 4)), rng.integers(0, 4, N)
    logits[np.arange(N), truth] += 1
    grid = np.exp(np.linspace(-2, 2, 4001))
    losses = [-log_softmax(logits / t, axis=1)[np.arange(N), truth].mean() for t in grid]
    assert fit_temperature(logits, truth) == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    binary, y = outcome
    assert fit_temperature(np.stack([0 * binary, 3 * binary], 1), y.astype(int)) == pytest.approx(3, rel=0.35)


def test_reliability_is_that_of_scikit_learn(outcome):
    logits, truth = outcome
    p = expit(logits)
    share, mean = calibration_curve(truth, p, n_bins=BINS, strategy="quantile")
    found = reliability(p, truth)
    np.testing.assert_allclose([b[0] for b in found], mean, rtol=1e-12)
    np.testing.assert_allclose([b[1] for b in found], share, rtol=1e-12)
    assert sum(b[2] for b in found) == N
    counts = np.array([b[2] for b in found])
    expected = np.sum(counts / N * np.abs(mean - share))
    assert ece(p, truth, np.ones((1, N)))[0] == pytest.approx(expected, rel=1e-12)
    assert brier(p, truth, np.ones((1, N)))[0] == pytest.approx(brier_score_loss(truth, p), rel=1e-12)


def test_a_replicate_is_the_error_of_the_repeated_examples_in_the_same_bins(rng, outcome):
    logits, truth = outcome
    p, bins = expit(logits), bin_of(expit(logits))
    times = rng.integers(0, 3, N)
    q, y, b = np.repeat(p, times), np.repeat(truth, times), np.repeat(bins, times)
    expected = sum(abs(q[b == k].sum() - y[b == k].sum()) for k in range(BINS)) / len(q)
    assert ece(p, truth, times[None].astype(float))[0] == pytest.approx(expected, rel=1e-9)


def test_ways_need_what_they_are_fitted_on(outcome):
    weights = np.ones((5, N))
    assert set(calibrate(outcome, outcome, weights, True)) == {"raw", "temperature", "platt"}
    assert set(calibrate(outcome, outcome, weights, False)) == {"platt"}
    assert set(calibrate(None, outcome, weights, True)) == {"raw"}
    assert not calibrate(None, outcome, weights, False)


def test_what_is_too_sure_becomes_better_on_other_examples(outcome):
    logits, truth = outcome
    half = (5 * logits[: N // 2], truth[: N // 2]), (5 * logits[N // 2 :], truth[N // 2 :])
    found = calibrate(*half, np.ones((1, N // 2)), True)
    for how in ("temperature", "platt"):
        assert found[how].brier.value < found["raw"].brier.value
        assert found[how].ece.value < found["raw"].ece.value
