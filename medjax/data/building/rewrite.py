"""A data set without some of its examples or items: shards are written anew, and only then the old ones go."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medjax.data.building.patients import write_patients
from medjax.data.building.shards import CHUNKS, SHARD
from medjax.data.curation.inspection import scan_shard
from medjax.data.ids import as_number
from medjax.data.items import ChunkFiles, copy_volumes, count_items, keep_items
from medjax.data.manifest import Manifest, Split, read
from medjax.data.records import UNFINISHED, RecordFile, encode
from medjax.errors import UserError

# What is kept of a record: all of it ({}), of some modalities only these items, in this order, or nothing (None).
Kept = Mapping[str, Sequence[int]] | None
# (split, number of the record in it, record) -> what to keep.
Choice = Callable[[str, int, Mapping[str, np.ndarray]], Kept]
_REVISION = re.compile(r"\.v(\d+)\.")


def rewrite(directory: Path, manifest: Manifest, choose: Choice, note: str) -> Manifest:
    """Writes the shards that change anew beside the old ones, then the manifest, then removes the old.

    After a kill the folder holds the old data set or the new one; the next call removes what is left over.
    Distributions of lab values and the tokenizer stay, since models depend on them. note: for the manifest.

    Raises:
      UserError: a split would be left without an example, or a shard is damaged; the data set is then as it was.
    """
    _sweep(directory, manifest)
    revision = 1 + max((int(n) for f in _files(manifest) for n in _REVISION.findall(f)), default=0)
    try:
        splits = {
            name: _rewrite_split(directory, manifest, name, split, choose, revision)
            for name, split in manifest.splits.items()
        }
        if empty := [name for name, split in splits.items() if not split.examples]:
            raise UserError(f"nothing would be left of the {empty[0]} split of {directory}; nothing was changed")
        notes = tuple(dict.fromkeys((*manifest.notes, note)))
        replace(manifest, splits=splits, notes=notes).save(directory)
    finally:
        _sweep(directory, read(directory))
    return read(directory)


def _files(manifest: Manifest) -> set[str]:
    entries = [e for s in manifest.splits.values() for shard in s.shards for e in (shard, shard.get("chunks") or {})]
    return {e["file"] for e in (*entries, *(s.patient_ids for s in manifest.splits.values())) if e}


def _sweep(directory: Path, manifest: Manifest) -> None:
    """Removes shards and lists of patients that the manifest does not name, and what was never finished."""
    named = _files(manifest)
    for path in (*directory.glob(f"*{SHARD}"), *directory.glob("patients-*.npy"), *directory.glob(f".*{UNFINISHED}")):
        if path.name not in named:
            path.unlink()


def _rewrite_split(
    directory: Path, manifest: Manifest, name: str, split: Split, choose: Choice, revision: int
) -> Split:
    chunks = ChunkFiles(directory, split)
    shards, patients, first = [], set(), 0
    present, positive = Counter(), Counter()
    for shard in split.shards:
        changes: dict[int, Kept] = {}
        for i, record in enumerate(scan_shard(directory, shard)):
            kept = choose(name, first + i, record)
            if kept is None or kept:
                changes[i] = kept
            if kept is None:
                continue
            patients.add(as_number(record["id/patient"]))
            counts = {m: len(kept[m]) if m in kept else count_items(record, m) for m in manifest.modalities}
            present.update(m for m, n in counts.items() if n)
            positive.update(k for k, v in zip(manifest.labels, record["labels"], strict=True) if v == 1)
        shards += _write(directory, shard, changes, chunks, revision) if changes else [shard]
        first += shard["records"]
    return replace(
        split,
        shards=tuple(shards),
        examples=sum(s["records"] for s in shards),
        patients=len(patients),
        present={m: present[m] for m in split.present},
        positive={k: positive[k] for k in split.positive},
        patient_ids=write_patients(directory, f"{name}.v{revision}", np.array(sorted(patients), np.uint64)),
    )


def _write(
    directory: Path, shard: Mapping, changes: Mapping[int, Kept], chunks: ChunkFiles, revision: int
) -> list[dict]:
    """The shard with its changes under a new name; none where no record is left."""
    stem = _REVISION.sub(".", shard["file"]).removesuffix(SHARD)
    paths = (directory / f"{stem}.v{revision}{ending}" for ending in (SHARD, CHUNKS))
    with RecordFile(next(paths)) as records, RecordFile(next(paths)) as boxes:
        for i, record in enumerate(scan_shard(directory, shard)):
            kept = changes.get(i, {})
            if kept is None:
                continue
            for modality, items in kept.items():
                record = keep_items(record, modality, items)
            records.write(encode(copy_volumes(record, chunks, boxes)))
        if not records.records:
            return []
        entry = records.finish()
        return [entry | ({"chunks": boxes.finish()} if boxes.records else {})]
