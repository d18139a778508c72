"""The search for the largest batch that fits."""

from types import SimpleNamespace

import pytest

from medjax.errors import UserError
from medjax.training.planning.plan import MemoryLimitError
from medjax.training.planning.search import largest_batch

UNIT = 8


def _compiler(peak, refuses_above=None):
    """Plans of a machine whose memory is `peak(batch)`; `sizes` are those that were compiled."""
    sizes = []

    def plan_of(size):
        sizes.append(size)
        if refuses_above is not None and peak(size) > refuses_above:
            raise MemoryLimitError("too much")
        return SimpleNamespace(batch_size=size, memory=SimpleNamespace(peak=peak(size)))

    return plan_of, sizes


@pytest.mark.parametrize("start", [8, 96, 4096])
@pytest.mark.parametrize("refuses", [None, 1000])
def test_a_line_is_followed_to_the_last_batch_that_fits(start, refuses):
    plan_of, sizes = _compiler(lambda b: 100 + 1.3 * b, refuses)
    assert largest_batch(plan_of, start, UNIT, 1000).batch_size == 688  # 692.3 in multiples of 8
    assert len(sizes) <= 8 and len(set(sizes)) == len(sizes)


def test_what_is_returned_was_compiled_and_fits_though_memory_jumps():
    peak = lambda b: 100 + b + (300 if b > 400 else 0)  # noqa: E731
    plan_of, sizes = _compiler(peak)
    found = largest_batch(plan_of, 64, UNIT, 600).batch_size
    assert found in sizes and peak(found) <= 600 and found >= 256
    assert all(size % UNIT == 0 for size in sizes)


def test_a_machine_that_is_too_small_for_anything_is_named():
    plan_of, _ = _compiler(lambda b: 5000 + b)
    with pytest.raises(UserError, match="not even a batch of 8 fits"):
        largest_batch(plan_of, 64, UNIT, 1000)
