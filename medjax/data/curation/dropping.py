"""Near-duplicates of a data set: what to drop from its training split, and why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medjax.data.building.rewrite import Choice, Kept
from medjax.data.curation.duplicates import (
    MAX_COSINE,
    MAX_HAMMING,
    dhash,
    distinct_embeddings,
    distinct_hashes,
    informative,
)
from medjax.data.curation.inspection import scan
from medjax.data.ids import as_number
from medjax.data.items import count_items
from medjax.data.manifest import SPLITS, Manifest
from medjax.data.readers.image import decode
from medjax.errors import UserError

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Rule:
    """method: "dhash", "embedding" or "entropy", as in `medjax.data.curation.duplicates`. scope: pictures are compared
    within a study, a patient, or the whole data set; in the last, also with validation and test, which lose nothing, so
    that no training picture has a near twin there. "entropy" compares nothing and ranks within the scope.
    """

    method: Literal["dhash", "embedding", "entropy"] = "dhash"
    scope: Literal["study", "patient", "dataset"] = "study"
    max_hamming: int = MAX_HAMMING
    max_cosine: float = MAX_COSINE
    keep_fraction: float = 0.5


@dataclass(frozen=True)
class Dropped:
    """A picture to drop: record and item of the training split, and the one that stands for it, if one does."""

    record: int
    item: int
    like_split: str = ""
    like_record: int | None = None
    like_item: int | None = None

    def as_dict(self) -> dict:
        """For a report."""
        return asdict(self)


@dataclass
class _Picture:
    split: str
    record: int
    item: int
    scope: int
    feature: object


def dropped(
    directory: Path, manifest: Manifest, modality: str, rule: Rule, embed: Embed | None = None
) -> list[Dropped]:
    """The pictures of the training split that the rule drops, in order.

    embed: pictures uint8[H, W] -> float32[n, E], for "embedding".

    Raises:
      UserError: the modality is no picture, or holds only references to files.
    """
    if manifest.modality(modality).kind != "image":
        raise UserError(
            f"near-duplicates are looked for among pictures; {modality!r} is {manifest.modality(modality).kind!r}"
        )
    if manifest.index_only:
        raise UserError("the data set is index-only; near-duplicates are looked for in copied records")
    out: list[Dropped] = []
    for group in _groups(_pictures(directory, manifest, modality, rule, embed)):
        out += _drop(group, rule)
    return sorted(out, key=lambda d: (d.record, d.item))


def _pictures(
    directory: Path, manifest: Manifest, modality: str, rule: Rule, embed: Embed | None
) -> Iterator[_Picture]:
    """Evaluation splits first, so that their pictures are the kept ones."""
    splits = reversed(SPLITS) if rule.scope == "dataset" and rule.method != "entropy" else ("train",)
    study = 0
    for split in splits:
        for record, arrays in enumerate(scan(directory, manifest, split)):
            study += 1
            scope = {"study": study, "patient": as_number(arrays["id/patient"]), "dataset": 0}[rule.scope]
            pictures = [np.asarray(decode(arrays[f"{modality}/{i}"])) for i in range(count_items(arrays, modality))]
            if rule.method == "embedding" and pictures:
                features = list(embed(pictures))
            else:
                features = [dhash(p) if rule.method == "dhash" else p for p in pictures]
            for item, feature in enumerate(features):
                yield _Picture(split, record, item, scope, feature)


def _groups(pictures: Iterator[_Picture]) -> Iterator[list[_Picture]]:
    by_scope: dict[int, list[_Picture]] = {}
    for picture in pictures:
        by_scope.setdefault(picture.scope, []).append(picture)
    yield from by_scope.values()


def _drop(group: list[_Picture], rule: Rule) -> list[Dropped]:
    features = [p.feature for p in group]
    if rule.method == "entropy":
        keep = informative(features, rule.keep_fraction)
        return [Dropped(p.record, p.item) for p, kept in zip(group, keep, strict=True) if not kept]
    if rule.method == "dhash":
        like = distinct_hashes(features, rule.max_hamming)
    else:
        like = distinct_embeddings(np.stack(features), rule.max_cosine)
    return [
        Dropped(p.record, p.item, group[j].split, group[j].record, group[j].item)
        for i, (p, j) in enumerate(zip(group, like, strict=True))
        if i != j and p.split == "train"
    ]


def without(drops: Sequence[Dropped], manifest: Manifest, modality: str) -> Choice:
    """The choice for `medjax.data.building.rewrite.rewrite`. A study that loses all its pictures is left out, unless it
    has something else than text.
    """
    by_record: dict[int, set[int]] = {}
    for d in drops:
        by_record.setdefault(d.record, set()).add(d.item)
    others = [m for m, x in manifest.modalities.items() if m != modality and x.kind != "text"]

    def choose(split: str, record: int, arrays: Mapping[str, np.ndarray]) -> Kept:
        gone = by_record.get(record) if split == "train" else None
        if not gone:
            return {}
        kept = [i for i in range(count_items(arrays, modality)) if i not in gone]
        return {modality: kept} if kept or any(count_items(arrays, m) for m in others) else None

    return choose
