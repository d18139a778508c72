"""What a data set holds, counted from its records, and how often a random batch of it holds related pairs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grain
import numpy as np

from medjax.data.ids import as_number, text_id
from medjax.data.items import count_items
from medjax.data.manifest import Manifest
from medjax.data.records import decode, decode_text
from medjax.data.remote import local_file
from medjax.errors import UserError, check_choice

# Ids that may relate two examples of a batch, and the loss option for pairs that share them.
RELATIONS = {"patient": "same_patient", "group": "same_group", "text": "same_text"}


def scan(directory: str | Path, manifest: Manifest, split: str) -> Iterator[Mapping[str, np.ndarray]]:
    """The records of a split in order, undecoded beyond their arrays.

    Raises:
      UserError: an unknown split, or a record that cannot be read.
    """
    check_choice("split", split, manifest.splits)
    for shard in manifest.splits[split].shards:
        yield from scan_shard(Path(directory), shard)


def scan_shard(directory: Path, shard: Mapping[str, Any]) -> Iterator[Mapping[str, np.ndarray]]:
    """The records of one shard, by its entry in the manifest.

    Raises:
      UserError: it is damaged, or holds another number of records.
    """
    source = grain.sources.ArrayRecordDataSource([str(local_file(directory, shard))])
    if len(source) != shard["records"]:
        raise UserError(
            f"{directory / shard['file']} holds {len(source)} records, its manifest says {shard['records']}"
        )
    for i in range(len(source)):
        try:
            data = source[i]
        except RuntimeError as error:  # ArrayRecord's own checksums
            raise UserError(f"record {i} of {directory / shard['file']} is damaged: {error}") from None
        yield decode(data)


@dataclass
class SplitSummary:
    """One split. ids: `{"patient", "group", "text": uint64[n]}`, 0 for unknown. present: studies by the set of
    modalities that they have. items: `{modality: Counter of items a study}`. labels: float32[n, K], NaN unknown.
    """

    examples: int = 0
    ids: dict[str, np.ndarray] = field(default_factory=dict)
    present: Counter = field(default_factory=Counter)
    items: dict[str, Counter] = field(default_factory=dict)
    observed: dict[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def known(self) -> np.ndarray:
        """int[K]: studies whose label is known."""
        return (~np.isnan(self.labels)).sum(0)

    def positive(self) -> np.ndarray:
        """int[K]: studies whose label is 1."""
        return (self.labels == 1).sum(0)


def summarise(directory: str | Path, manifest: Manifest, split: str) -> SplitSummary:
    """Counts one split. Memory: 24 bytes of ids and four a label for each study; items are looked at one by one."""
    out = SplitSummary(items={m: Counter() for m in manifest.modalities})
    kinds = {m: x.kind for m, x in manifest.modalities.items()}
    labs = {m: np.zeros(len(x.names), np.int64) for m, x in manifest.modalities.items() if x.kind == "labs"}
    ids: dict[str, list[int]] = {name: [] for name in RELATIONS}
    labels = []
    for record in scan(directory, manifest, split):
        out.examples += 1
        for name in ("patient", "group"):
            ids[name].append(as_number(record[f"id/{name}"]))
        counts = {m: count_items(record, m) for m in kinds}
        texts = [f"{m}/{i}" for m, n in counts.items() for i in range(n) if kinds[m] == "text"]
        said = [decode_text(record[key]) for key in texts if key in record]  # of an index-only data set perhaps none
        ids["text"].append(as_number(text_id("\n".join(said))))
        out.present[tuple(m for m, n in counts.items() if n)] += 1
        for m, n in counts.items():
            out.items[m][n] += 1
            for i in range(n if m in labs else 0):
                labs[m] += ~np.isnan(record[f"{m}/{i}"])
        labels.append(record["labels"])
    out.ids = {name: np.array(values, np.uint64) for name, values in ids.items()}
    out.observed = labs
    out.labels = np.stack(labels) if labels else np.zeros((0, len(manifest.labels)), np.float32)
    return out


def expected_pairs(ids: np.ndarray, batch: int) -> float:
    """How many of the `B (B - 1) / 2` pairs of a batch share an id, on average over batches drawn without replacement.

    ids: uint64[n], 0 for unknown, which matches nothing. With n_c examples of id c the expectation is
    `B (B - 1) / 2 * sum_c n_c (n_c - 1) / (n (n - 1))`.
    """
    n = len(ids)
    batch = min(batch, n)
    if batch < 2:
        return 0.0
    _, counts = np.unique(ids[ids != 0], return_counts=True)
    counts = counts.astype(np.float64)
    return float(batch * (batch - 1) / 2 * (counts * (counts - 1)).sum() / (n * (n - 1)))


def rows_affected(ids: np.ndarray, batch: int) -> float:
    """The share of the examples of a random batch that have at least one false negative among the others.

    An example of an id with n_c members has none with probability C(n - n_c, B - 1) / C(n - 1, B - 1).
    """
    n = len(ids)
    batch = min(batch, n)
    if batch < 2:
        return 0.0
    _, counts = np.unique(ids[ids != 0], return_counts=True)
    steps = np.arange(batch - 1)
    alone = {int(c): float(np.prod(np.clip((n - c - steps) / (n - 1 - steps), 0, 1))) for c in np.unique(counts)}
    return float(sum(c * (1 - alone[int(c)]) for c in counts) / n)
