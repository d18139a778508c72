"""Which record a training example is: groups of records, their shares, and buckets, at any global example index."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import grain

from medjax.data.sampling.schedule import Schedule
from medjax.errors import UserError


@dataclass(frozen=True)
class Group:
    """Records that are drawn alike. name: seeds their order where there are several groups. records: their numbers."""

    name: str
    records: Sequence[int]
    weight: float


class Sampler:
    """Global example index -> (bucket, record), a function of the seed and the index alone.

    A group runs through its records in epochs, each in another random order. Groups of a bucket, and buckets, take
    their turns by a `Schedule`, which keeps to the shares at every index. A single group is in the order
    `grain.MapDataset.range(n).seed(seed).shuffle().repeat()`.

    buckets: the groups of each. run: as many consecutive examples, from a multiple of it on, are of one bucket.

    Raises:
      UserError: a bucket or a group without a record.
    """

    def __init__(self, buckets: Sequence[Sequence[Group]], seed: int, run: int = 1):
        if not all(buckets) or not all(len(g.records) for groups in buckets for g in groups):
            raise UserError("a bucket or group of training examples is empty; leave it out")
        self._run = run if len(buckets) > 1 else 1
        alone = sum(len(groups) for groups in buckets) == 1
        self._turns = Schedule([sum(g.weight for g in groups) for groups in buckets])
        self._groups = [
            (
                Schedule([g.weight for g in groups]),
                [g.records for g in groups],
                [_order(len(g.records), seed if alone else _seed(seed, b, g.name)) for g in groups],
            )
            for b, groups in enumerate(buckets)
        ]

    def __call__(self, index: int) -> tuple[int, int]:
        """(bucket, record number) of a global example index."""
        turn, at = divmod(index, self._run)
        bucket, turns = self._turns(turn)
        schedule, records, orders = self._groups[bucket]
        group, place = schedule(turns * self._run + at)
        return bucket, int(records[group][orders[group][place]])


def _order(records: int, seed: int) -> grain.MapDataset:
    return grain.MapDataset.range(records).seed(seed).shuffle().repeat()


def _seed(seed: int, bucket: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{bucket}:{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
