"""Dates become days since the patient's first study."""

import numpy as np
import pytest

from medjax.data.privacy.days import are_dates, relative_days
from medjax.errors import UserError


def test_distances_stay_and_the_calendar_goes():
    days = relative_days(["a", "b", "a", "b"], ["2180-05-06", "1999-12-31", "2180-05-01T12:00:00", ""])
    np.testing.assert_allclose(days, [4.5, 0, 0, np.nan])


def test_a_shift_is_one_for_each_patient_and_depends_on_the_key():
    patients, dates = [f"p{i // 2}" for i in range(40)], ["2020-02-28", "2020-03-01"] * 20
    plain = np.array(relative_days(patients, dates))
    shifted, other = (np.array(relative_days(patients, dates, key, spread=365)) for key in (b"k" * 16, b"l" * 16))
    np.testing.assert_allclose(np.diff(shifted.reshape(-1, 2), axis=1), 2)  # 2020 had a 29 February
    offsets = (shifted - plain)[::2]
    assert offsets.min() >= 0 and offsets.max() < 365 and len(set(offsets)) > 10
    assert not np.array_equal(shifted, other)


def test_a_date_that_cannot_be_read_is_not_repeated():
    with pytest.raises(UserError, match="the date of study 2 is not written") as error:
        relative_days(["a", "a"], ["2020-01-01", "yesterday"])
    assert "yesterday" not in str(error.value)


def test_numbers_of_days_are_no_dates():
    assert are_dates(["", "2020-01-01"]) and are_dates(["20200101"])
    assert not are_dates(["12.5", "3"]) and not are_dates(["", ""]) and not are_dates([])
