"""The largest batch that fits."""

import math
from collections.abc import Callable

from medjax.errors import UserError
from medjax.training.planning.plan import MemoryLimitError, Plan

_COMPILATIONS = 8


def largest_batch(plan_of: Callable[[int], Plan], start: int, unit: int, capacity: float) -> Plan:
    """The plan of the largest batch whose step fits into `capacity` bytes a device.

    plan_of: compiles a global batch. unit: batches are multiples of it. Memory grows with the batch nearly in a line:
    two sizes tell where it meets the capacity, and what is returned was compiled. At most eight compilations, so it may
    stop a little below the largest.

    Raises:
      UserError: not even the smallest batch fits.
    """
    tried: dict[int, float] = {}
    best: Plan | None = None
    size = max(start // unit, 1) * unit
    while size not in tried and len(tried) < _COMPILATIONS:
        try:
            plan = plan_of(size)
            tried[size] = plan.memory.peak
        except MemoryLimitError:
            plan, tried[size] = None, math.inf
        if plan is not None and tried[size] <= capacity and (best is None or size > best.batch_size):
            best = plan
        size = _next(tried, unit, capacity)
    if best is None:
        raise UserError(f"not even a batch of {min(tried)} fits; take more devices, or remat='full' of the towers")
    return best


def _next(tried: dict[int, float], unit: int, capacity: float) -> int:
    """The size to try next; one that was tried already ends the search."""
    fits = [n for n, peak in tried.items() if peak <= capacity]
    known = sorted(n for n, peak in tried.items() if peak < math.inf)
    too_large = min((n for n, peak in tried.items() if peak > capacity), default=None)
    if len(known) < 2:
        if fits and too_large is not None:
            return (max(fits) + too_large) // 2 // unit * unit
        return max(tried) * 2 if fits else max(min(tried) // 2 // unit, 1) * unit
    low, high = known[-2:]
    slope = (tried[high] - tried[low]) / (high - low)
    guess = int((capacity - tried[low]) / slope + low) // unit * unit if slope > 0 else 2 * high
    guess = max(guess, unit)
    if too_large is not None and guess >= too_large:
        guess = too_large - unit if fits and too_large - max(fits) > unit else max(fits, default=too_large // 2)
        guess = max(guess // unit, 1) * unit
    return guess
