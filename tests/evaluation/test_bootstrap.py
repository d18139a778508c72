"""Intervals resample patients, and say so where nothing can be said."""

import numpy as np
import pytest

from medjax.evaluation import bootstrap
from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.metrics import weighted_mean


def test_studies_of_a_patient_come_and_go_together(rng):
    patients = rng.integers(0, 12, 50)
    weights = bootstrap.patient_weights(patients, 200)
    assert weights.shape == (201, 50)
    for p in np.unique(patients):
        of_patient = weights[:, patients == p]
        np.testing.assert_array_equal(of_patient, of_patient[:, :1].repeat(of_patient.shape[1], axis=1))
    assert len(np.unique(weights[1:], axis=0)) > 190


def test_the_first_row_counts_each_once_and_each_replicate_draws_as_many_patients():
    weights = bootstrap.patient_weights(np.arange(30), 100)
    np.testing.assert_array_equal(weights[0], 1)
    np.testing.assert_array_equal(weights.sum(axis=1), 30)


def test_the_same_seed_draws_the_same_so_that_differences_are_paired():
    patients = np.arange(20) // 2
    np.testing.assert_array_equal(bootstrap.patient_weights(patients), bootstrap.patient_weights(patients))
    assert not np.array_equal(bootstrap.patient_weights(patients), bootstrap.patient_weights(patients, seed=1))


def test_the_interval_covers_the_truth_as_often_as_it_says(rng):
    covered = 0
    for seed in range(200):
        values = rng.normal(size=60)
        got = bootstrap.summarise(weighted_mean(values, bootstrap.patient_weights(np.arange(60), 300, seed)))
        assert got.low <= got.value <= got.high
        covered += got.low <= 0 <= got.high
    # 95 % of 200 is 190; the percentile bootstrap of 60 values covers a little less, and 4 sigma are 12.
    assert 172 <= covered <= 200


def test_intervals_over_patients_are_wider_than_over_their_repeated_studies(rng):
    values = np.repeat(rng.normal(size=20), 10)
    patients = np.repeat(np.arange(20), 10)

    def width(groups):
        got = bootstrap.summarise(weighted_mean(values, bootstrap.patient_weights(groups)))
        return got.high - got.low

    # Ten equal studies a patient: sqrt(10) = 3.2 times as wide.
    assert width(patients) > 2 * width(np.arange(200))


def test_replicates_without_a_value_are_left_out():
    values = np.concatenate([[0.7], np.full(50, np.nan), np.linspace(0, 1, 101)])
    got = bootstrap.summarise(values)
    assert (got.value, got.low, got.high) == (0.7, pytest.approx(0.025), pytest.approx(0.975))


@pytest.mark.parametrize("values", [np.array([0.7]), np.array([0.7, np.nan])])
def test_without_replicates_there_is_a_value_and_no_interval(values):
    got = bootstrap.summarise(values)
    assert got.value == 0.7 and np.isnan([got.low, got.high]).all()
    assert len(bootstrap.patient_weights(np.arange(5), 0)) == 1


def test_the_average_leaves_out_what_has_no_value():
    got = bootstrap.average([np.array([0.6, np.nan, np.nan]), np.array([0.8, 0.5, np.nan])])
    np.testing.assert_allclose(got, [0.7, 0.5, np.nan])


def test_patients_are_numbered_by_their_whole_id():
    ids = np.array([[1, 2], [1, 3], [1, 2], [2, 2]], np.uint32)
    numbers = bootstrap.number_patients(ids)
    np.testing.assert_array_equal(numbers[:, None] == numbers[None], (ids[:, None] == ids[None]).all(-1))
    assert set(numbers) == {0, 1, 2}


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (Interval(0.1, 0.02, 0.2), "better"),
        (Interval(-0.1, -0.2, -0.02), "worse"),
        (Interval(0.1, -0.01, 0.2), "not resolvable on this data"),
        (Interval(0.1, np.nan, np.nan), "not resolvable on this data"),
    ],
)
def test_a_difference_is_called_one_only_if_its_interval_excludes_zero(difference, said):
    assert bootstrap.verdict(difference) == said
