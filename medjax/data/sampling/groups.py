"""The groups that training examples are drawn from: by data set, balanced by label or modality, in buckets."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.data.items import count_items
from medjax.data.options import DataConfig
from medjax.data.records import decode
from medjax.data.sampling.sampler import Group
from medjax.data.sampling.sets import OpenSet
from medjax.errors import UserError, check_choice

log = logging.getLogger("medjax")


@dataclass(frozen=True)
class Traits:
    """What groups depend on, of each record of a split. items: `{modality: int[n]}`, how many it has. positive:
    bool[n, K], labels that are 1. Both are zero for a record that cannot be read.
    """

    items: Mapping[str, np.ndarray]
    positive: np.ndarray

    @classmethod
    def read(cls, s: OpenSet, split: str = "train") -> "Traits":
        """Reads every record of the split once."""
        source = s.source(split)
        log.info("reading %d records of %s once to group them", len(source), s.manifest.name)
        items = {m: np.zeros(len(source), int) for m in s.manifest.modalities}
        positive = np.zeros((len(source), len(s.manifest.labels)), bool)
        for i in range(len(source)):
            try:
                record = decode(source[i])
            except (UserError, RuntimeError):
                continue  # becomes an invalid example, wherever it is drawn
            for m, counts in items.items():
                counts[i] = count_items(record, m)
            if "labels" in record and record["labels"].shape == positive[i].shape:
                positive[i] = record["labels"] == 1
        return cls(items, positive)


def make_groups(config: DataConfig, sets: Sequence[OpenSet]) -> list[list[Group]]:
    """The groups of each bucket; one bucket where none is configured. Records count through the sets in order.

    A set has its weight, shared out over its groups by `balance_weights`, and over buckets by numbers of records.

    Raises:
      UserError: a bucket without records, a set in no bucket, or weights of groups that are not there.
    """
    names = list(config.buckets) or [""]
    buckets: list[list[Group]] = [[] for _ in names]
    look = bool(config.balance) or any(b.max_items for b in config.buckets.values())
    known: set[str] = set()
    start = 0
    for s in sets:
        n = s.manifest.splits["train"].examples
        traits = Traits.read(s) if look else None
        place = _buckets(config, s.name, n, traits)
        keys, kinds = _balance(config, s, n, traits)
        weights = {k: config.balance_weights.get(kinds[k], 1.0) for k in np.unique(keys).tolist()}
        known |= set(kinds)
        for k, weight in weights.items():
            share = s.weight * weight / (sum(weights.values()) or 1)
            for b in range(len(names)):
                records = np.flatnonzero((keys == k) & (place == b))
                if len(records) and share > 0:
                    part = float(share * len(records) / np.count_nonzero(keys == k))
                    whole = len(records) == n
                    numbers = range(start, start + n) if whole else start + records
                    buckets[b].append(Group(f"{s.name}/{kinds[k]}", numbers, part))
        start += n
    for name in config.balance_weights:
        check_choice("group in config.data.balance_weights", name, known)
    if empty := [name for name, groups in zip(names, buckets, strict=True) if not groups]:
        raise UserError(f"no training record belongs to {', '.join(empty)} of config.data.buckets; leave it out")
    return buckets


def _balance(config: DataConfig, s: OpenSet, n: int, traits: Traits | None) -> tuple[np.ndarray, list[str]]:
    """int[n], the group of each record of a set, and the names of the groups."""
    if not config.balance or traits is None:
        return np.zeros(n, np.int8), [""]
    if config.balance == "label":
        counts = traits.positive.sum(0)
        rarest = np.where(traits.positive, counts, n + 1).argmin(1) if counts.size else np.zeros(n, int)
        return np.where(traits.positive.any(1), rarest, counts.size), [*s.manifest.labels, "none"]
    modalities = [m for m in config.modalities if m in traits.items]
    present = np.stack([traits.items[m] > 0 for m in modalities], 1)
    patterns, keys = np.unique(present, axis=0, return_inverse=True)
    names = ["+".join(m for m, there in zip(modalities, row, strict=True) if there) or "none" for row in patterns]
    return keys.reshape(-1), names


def _buckets(config: DataConfig, name: str, n: int, traits: Traits | None) -> np.ndarray:
    """int[n], the bucket of each record of the set `name`."""
    if not config.buckets:
        return np.zeros(n, np.int8)
    taking = [(i, b) for i, b in enumerate(config.buckets.values()) if not b.sets or name in b.sets]
    if not taking:
        raise UserError(f"no bucket of config.data.buckets takes the set {name!r}; add it to the sets of one")
    out = np.full(n, taking[-1][0])
    for i, bucket in reversed(taking):
        fits = np.ones(n, bool)
        for m, most in bucket.max_items.items():
            if traits is not None and m in traits.items:
                fits &= traits.items[m] <= most
        out[fits] = i
    return out


def bucket_items(config: DataConfig, bucket: str, sets: Sequence[OpenSet]) -> dict[str, int]:
    """`max_items` of a bucket: no item of what none of its sets has."""
    own = config.buckets[bucket]
    there = {m for s in sets if not own.sets or s.name in own.sets for m in s.manifest.modalities}
    return {**config.max_items, **own.max_items, **{m: 0 for m in config.modalities if m not in there}}
