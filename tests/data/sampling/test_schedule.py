"""Streams keep to their shares at every position, and any position is found without replay."""

import numpy as np
import pytest

from medjax.data.sampling.schedule import Schedule
from medjax.errors import UserError


@pytest.mark.parametrize(
    "weights", [(1,), (1, 1), (7, 3), (0.7, 0.2, 0.1), (1 / 3, 2 / 3), (900, 1, 1), (0.3, *(0.01,) * 70)]
)
def test_every_stream_has_its_share_to_within_one_at_every_position(weights):
    schedule = Schedule(weights)
    share = np.array(schedule.counts) / schedule.period
    np.testing.assert_allclose(share, np.array(weights) / sum(weights), atol=1e-4)
    done = np.zeros(len(weights))
    for position in range(2 * schedule.period + 3 if schedule.period < 2000 else 3000):
        assert np.abs(done - share * position).max() < 1
        stream, place = schedule(position)
        assert place == done[stream]
        done[stream] += 1


def test_far_positions_go_on_where_the_period_before_them_ended():
    schedule = Schedule((5, 2))
    far = 7 * 10**15
    assert [schedule(far + i)[0] for i in range(7)] == [schedule(i)[0] for i in range(7)]
    assert schedule(far)[1] == 5 * 10**15


def test_whole_numbers_are_kept_exactly():
    assert Schedule((100_000, 200_000)).counts == [1, 2]


@pytest.mark.parametrize("weights", [(), (1, 0), (1, -2), (float("nan"),), (float("inf"), 1)])
def test_weights_that_are_no_weights_are_refused(weights):
    with pytest.raises(UserError, match="weights must be"):
        Schedule(weights)
