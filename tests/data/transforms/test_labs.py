"""Lab values are scaled by the training split; gaps are zero and marked."""

from pathlib import Path

import numpy as np
import pytest

from medjax.data.manifest import Modality
from medjax.data.transforms.labs import LabsConfig, LabsTransform, rank
from medjax.errors import UserError

NAMES = ("crp", "sodium", "urea")
MEAN, STD, LOW, HIGH = (10.0, 140.0, 30.0), (5.0, 3.0, 8.0), (1.0, 130.0, 10.0), (40.0, 150.0, 90.0)


def make(drop=0.0) -> LabsTransform:
    return LabsTransform(LabsConfig(drop=drop), NAMES, MEAN, STD, LOW, HIGH)


def test_values_are_in_units_of_spread():
    got = make().prepare(np.array([15, 137, 30], np.float32))
    np.testing.assert_allclose(got["value"], [1.0, -1.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(got["observed"], 1.0)


def test_gaps_are_zero_and_marked():
    got = make().prepare(np.array([np.nan, 143, np.nan], np.float32))
    np.testing.assert_allclose(got["value"], [0.0, 1.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(got["observed"], [0, 1, 0])


def test_a_gap_differs_from_an_observed_mean():
    gap, mean = (make().prepare(np.array([v, 140, 30], np.float32)) for v in (np.nan, 10))
    assert gap["value"][0] == mean["value"][0] == 0
    assert (gap["observed"][0], mean["observed"][0]) == (0, 1)


@pytest.mark.parametrize(("value", "edge"), [(np.inf, 40.0), (1e9, 40.0), (-np.inf, 1.0), (-5.0, 1.0)])
def test_values_beyond_the_limits_are_clipped_and_observed(value, edge):
    got = make().prepare(np.array([value, 140, 30], np.float32))
    assert got["value"][0] == pytest.approx((edge - 10) / 5) and got["observed"][0] == 1


def test_hiding_takes_value_and_mark_together():
    prepared = make().prepare(np.array([15, 137, np.nan], np.float32))
    hidden = 0
    for seed in range(300):
        got = make(0.3).finish(prepared, np.random.default_rng(seed))
        kept = got["observed"] == 1
        np.testing.assert_array_equal(got["value"][kept], prepared["value"][kept])
        assert not got["value"][~kept].any() and not kept[2]
        hidden += 2 - kept.sum()
    # 600 values: four binomial standard deviations.
    assert abs(hidden / 600 - 0.3) < 4 * (0.3 * 0.7 / 600) ** 0.5


def test_a_dict_may_leave_values_out_in_any_order():
    np.testing.assert_array_equal(make().raw({"urea": 30, "crp": 5}), np.array([5, np.nan, 30], np.float32))


def test_an_unknown_value_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="unknown lab value 'sodum'; did you mean 'sodium'"):
        make().raw({"sodum": 3})


def test_another_number_of_values_is_refused():
    with pytest.raises(UserError, match=r"must be \[3\], got \[2\]"):
        make().prepare(np.zeros(2, np.float32))


def ranked(*columns, **options) -> LabsTransform:
    """By the percentiles of training columns."""
    names = tuple(f"test {i}" for i in range(len(columns)))
    percentiles = {n: tuple(np.percentile(c, np.arange(1, 100)).tolist()) for n, c in zip(names, columns, strict=True)}
    schema = Modality(
        "labs", names, statistics=dict.fromkeys(names, (0.0, 1.0, 0.0, 1.0, 1.0)), percentiles=percentiles
    )
    return LabsTransform.create(LabsConfig(scaling="percentile", **options), schema, Path())


def test_percentiles_of_training_values_are_uniform_whatever_their_distribution(rng):
    train = np.exp(2 * rng.normal(size=2000)).astype(np.float32)
    transform = ranked(train)
    got = np.sort([transform.prepare(np.array([x]))["value"][0] for x in train])
    # Ranks of the data themselves; the table ends one percent before either end.
    np.testing.assert_allclose(got, np.linspace(0, 1, 2000) - 0.5, atol=0.011)
    assert abs(got.mean()) < 1e-3


def test_percentiles_follow_the_empirical_distribution_at_ties():
    train = np.repeat([0.0, 1.0, 5.0], [400, 500, 100])
    got = [rank(x, np.percentile(train, np.arange(1, 100))) for x in (0.0, 1.0, 5.0, -1.0, 7.0)]
    np.testing.assert_allclose(got, [0.4, 0.9, 1.0, 0.0, 1.0], atol=0.011)
    value = ranked(train).prepare(np.array([1.0]))["value"][0]
    assert value == pytest.approx(0.9 - (0.4 * 0.4 + 0.5 * 0.9 + 0.1), abs=0.011)  # less the training mean


def test_gaps_and_limits_by_percentile(rng):
    a, b, c = rng.normal(size=(3, 500))
    got = ranked(a, b, c).prepare(np.array([np.nan, np.inf, -np.inf], np.float32))
    np.testing.assert_allclose(got["value"], [0.0, 0.49, -0.49], atol=1e-6)
    np.testing.assert_array_equal(got["observed"], [0, 1, 1])


def test_a_data_set_without_percentiles_is_refused_only_where_they_are_asked_for():
    old = Modality("labs", ("crp",), statistics={"crp": (0.0, 1.0, 0.0, 1.0, 1.0)})
    assert LabsTransform.create(LabsConfig(), old, Path()).prepare(np.zeros(1, np.float32))["observed"] == 1
    with pytest.raises(UserError, match=r"percentiles that the data set lacks for crp; build it again"):
        LabsTransform.create(LabsConfig(scaling="percentile"), old, Path())
