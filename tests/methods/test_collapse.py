"""Effective rank tells features that fill their space from those that fill a line or a point."""

import logging

import numpy as np
import pytest

from medjax.methods.collapse import COLLAPSED, effective_rank, ranks


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    monkeypatch.setattr(logging.getLogger("medjax"), "propagate", True)  # a run turns that off


def test_ranks_by_hand():
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    assert effective_rank(square) == pytest.approx(2)
    assert effective_rank(square * [3, 1] + 50) == pytest.approx(4 / 3**0.75)  # shares of 3/4 and 1/4 about any mean
    assert effective_rank(np.outer([1.0, 2, 5], [3.0, 4])) == pytest.approx(1)
    assert effective_rank(square).dtype == np.float32


def test_noise_fills_its_dimensions_and_a_common_mean_changes_nothing(rng):
    x = rng.normal(size=(500, 16))
    assert 15 < effective_rank(x) <= 16
    assert effective_rank(x + 20) == pytest.approx(effective_rank(x), rel=1e-5)


def test_features_that_differ_by_rounding_alone_have_rank_one(rng):
    """The differences themselves are noise, which fills all dimensions."""
    same = rng.normal(size=16) + 1e-5 * rng.normal(size=(100, 16))
    assert effective_rank(same) == effective_rank(np.zeros((100, 16))) == 1
    assert effective_rank(same - same.mean(axis=0)) > 15


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_have_no_rank(rng, value):
    x = rng.normal(size=(9, 4))
    x[2, 1] = value
    assert np.isnan(effective_rank(x)) and np.isnan(effective_rank(np.ones((1, 4))))


def test_a_collapse_is_warned_of_by_name_and_health_is_not(rng, caplog):
    line, wide = np.outer(rng.normal(size=50), rng.normal(size=8)), rng.normal(size=(50, 8))
    with caplog.at_level("WARNING", "medjax"):
        assert ranks({"image": wide}).keys() == {"effective_rank"}
        assert not caplog.records
        found = ranks({"image": wide, "ecg": line, "labs": wide[:1]})  # one example tells nothing
    assert found.keys() == {"effective_rank", "effective_rank/image", "effective_rank/ecg"}
    assert found["effective_rank"] == found["effective_rank/ecg"] < COLLAPSED < found["effective_rank/image"]
    assert [r.args[0] for r in caplog.records] == ["ecg"]


def test_without_examples_nothing_is_said():
    assert ranks({"image": np.zeros((0, 4))}) == {}
