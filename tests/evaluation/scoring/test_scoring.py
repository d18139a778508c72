"""Scores of pictures, masks and grades, beside numbers worked out by hand or another way."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.metrics import cohen_kappa_score, jaccard_score, mean_absolute_error

from medjax.errors import UserError
from medjax.evaluation import multiclass
from medjax.evaluation.scoring import grades, masks, pictures


def test_psnr_of_a_known_error():
    # An error of 5 everywhere: 10 log10(255^2 / 25).
    assert pictures.psnr(np.full((4, 4), 10, np.uint8), np.full((4, 4), 5, np.uint8)) == pytest.approx(
        34.1514, abs=1e-4
    )
    assert pictures.psnr(np.ones((4, 4)), np.ones((4, 4))) == np.inf


def test_ssim_is_the_mean_over_windows_written_out(rng):
    x = rng.integers(0, 256, (14, 13)).astype(np.uint8)
    y = np.clip(x + rng.normal(0, 30, x.shape), 0, 255)
    axis = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(axis, axis) / axis.sum() ** 2
    found, (c1, c2) = [], ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
    for i in range(4):
        for j in range(3):
            a, b = x[i : i + 11, j : j + 11].astype(float), y[i : i + 11, j : j + 11]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb, cov = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
            found.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert pictures.ssim(x, y) == pytest.approx(np.mean(found), rel=1e-9)
    both = pictures.ssim(np.stack([x, x], -1), np.stack([y, x.astype(float)], -1))
    assert both == pytest.approx((np.mean(found) + 1) / 2, rel=1e-9)
    with pytest.raises(UserError, match="11 x 11 pixels, got 10 x 13"):
        pictures.ssim(x[:10], y[:10])


def test_frechet_distance_is_that_of_the_gaussians(rng):
    x, y = rng.normal(size=(50, 4)), rng.normal(1, 2, size=(40, 4)) @ rng.normal(size=(4, 4))
    c1, c2 = np.cov(x.T), np.cov(y.T)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert pictures.frechet(x, y) == pytest.approx(expected, rel=1e-8)
    # Fewer examples than numbers each: covariances are singular, and the distance to itself is still none.
    assert pictures.frechet(x[:3], x[:3]) == pytest.approx(0, abs=1e-9)
    # Shifted by 3 along one axis: nine, whatever the covariances are.
    assert pictures.frechet(x, x + np.array([3, 0, 0, 0])) == pytest.approx(9)
    assert 0 < pictures.frechet_of_halves(x) < expected
    with pytest.raises(UserError, match="got 1 and 40"):
        pictures.frechet(x[:1], y)


def test_overlap_by_hand(rng):
    predicted, truth = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    predicted[0, :2, :2], truth[0, :2, :3] = True, True
    assert masks.overlap(predicted, truth) == {"dice": pytest.approx(0.8), "iou": pytest.approx(4 / 6)}
    noise = rng.random((2, 9, 9)) > 0.5
    assert masks.overlap(noise[0], noise[1])["iou"] == pytest.approx(jaccard_score(noise[1].ravel(), noise[0].ravel()))
    assert np.isnan(masks.overlap(np.zeros_like(truth), np.zeros_like(truth))["dice"])


def test_hd95_in_units_of_the_spacing():
    predicted, truth = np.zeros((1, 9, 30), bool), np.zeros((1, 9, 30), bool)
    predicted[0, 4, :20], truth[0, 6, :20] = True, True
    assert masks.hd95(predicted, truth, (1.0, 2.5, 1.0)) == pytest.approx(5.0)  # two rows of 2.5
    predicted[0, 0, 29] = True  # one voxel in 21 far away: below a twentieth it counts, above it does not
    assert masks.hd95(predicted, truth, (1.0, 2.5, 1.0)) == pytest.approx(5.0)
    assert np.isnan(masks.hd95(np.zeros_like(truth), truth, (1.0, 1.0, 1.0)))


def test_grades_as_scikit_learn_scores_them(rng):
    truth, found = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    weights = np.stack([np.ones(60), rng.integers(0, 3, 60)])
    table = multiclass.confusion(found, truth, 4, weights)
    for r, w in enumerate(weights):
        kappa = cohen_kappa_score(truth, found, weights="quadratic", sample_weight=w)
        assert grades.quadratic_kappa(table)[r] == pytest.approx(kappa)
        error = mean_absolute_error(truth, found, sample_weight=w)
        assert grades.mean_absolute_error(table, np.arange(4.0))[r] == pytest.approx(error)
        assert grades.within_one(table)[r] == pytest.approx(np.average(abs(truth - found) <= 1, weights=w))


def test_rank_correlations_by_hand():
    found = grades.rank_correlations(np.array([1.0, 3, 2]), np.array([0.0, 1, 2]), np.array([[1, 1, 1], [3, 0, 0]]))
    # Two of three pairs in order: (2 - 1) / 3; ranks differ by 1 twice: 1 - 6 * 2 / (3 * 8).
    np.testing.assert_allclose(found["kendall_tau_b"], [1 / 3, np.nan])
    np.testing.assert_allclose(found["spearman"], [0.5, np.nan])
