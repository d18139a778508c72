"""Several streams in one: which stream a position belongs to, and its place there, by arithmetic alone."""

import functools
import heapq
import math
from collections.abc import Sequence

import numpy as np

from medjax.errors import UserError

RESOLUTION = 10_000


class Schedule:
    """Position -> (stream, place in the stream) for streams of given weights, at any position without replay.

    One period is laid out by earliest deadline first over the windows of proportionate progress (Baruah et al., 1996,
    "Proportionate progress"), and repeats. Before every position each stream has had its share to within one.

    weights: positive. Whole numbers whose sum, divided by their common factor, is at most 10 000 are kept exactly;
    others are rounded to shares of 1 / 10 000, but never to nothing.

    Raises:
      UserError: a weight that is not positive and finite, or too many streams.
    """

    def __init__(self, weights: Sequence[float]):
        self.counts = _whole(weights)
        self.period = sum(self.counts)
        self._stream = _layout(tuple(self.counts))
        self._rank = np.empty(self.period, np.int64)
        for stream, count in enumerate(self.counts):
            self._rank[self._stream == stream] = np.arange(count)

    def __call__(self, position: int) -> tuple[int, int]:
        """(stream, place): how many positions before this one belong to the same stream."""
        turn, at = divmod(position, self.period)
        stream = int(self._stream[at])
        return stream, turn * self.counts[stream] + int(self._rank[at])


def _whole(weights: Sequence[float]) -> list[int]:
    """Counts in one period, without a common factor."""
    if not weights or len(weights) > RESOLUTION // 2 or not all(math.isfinite(w) and w > 0 for w in weights):
        raise UserError(f"weights must be 1 to {RESOLUTION // 2} positive numbers, got {list(weights)[:20]}")
    if all(float(w).is_integer() for w in weights):
        counts = _reduced([int(w) for w in weights])
        if sum(counts) <= RESOLUTION:
            return counts
    total = math.fsum(weights)
    return _reduced([max(1, round(w / total * RESOLUTION)) for w in weights])


def _reduced(counts: list[int]) -> list[int]:
    factor = math.gcd(*counts)
    return [n // factor for n in counts]


@functools.lru_cache(16)
def _layout(counts: tuple[int, ...]) -> np.ndarray:
    """int16[period]: among the streams whose window is open, the one whose window closes first; ties to the first."""
    period = sum(counts)
    stream = np.repeat(np.arange(len(counts)), counts)
    rank = np.concatenate([np.arange(n) for n in counts])
    share = np.array(counts)[stream]
    opens, closes = rank * period // share, -(-(rank + 1) * period // share)
    waiting = sorted(zip(opens.tolist(), closes.tolist(), stream.tolist(), strict=True), reverse=True)
    ready: list[tuple[int, int]] = []
    out = np.empty(period, np.int16)
    for at in range(period):
        while waiting and waiting[-1][0] <= at:
            heapq.heappush(ready, waiting.pop()[1:])
        out[at] = heapq.heappop(ready)[1]
    return out
