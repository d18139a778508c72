"""Embeddings of a split with one modality corrupted; those of the other modalities stay as they are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medjax.data.batch import Batch, Items
from medjax.data.examples import none_of, stack
from medjax.data.manifest import Modality
from medjax.data.pipeline import Dataset
from medjax.data.transforms import Transform
from medjax.evaluation.corruptions.base import Corruption
from medjax.evaluation.corruptions.image import decoded
from medjax.evaluation.embeddings import EmbeddingTable


@dataclass(frozen=True)
class Corruptor:
    """What it takes to embed a split with a modality corrupted. encode: maps a Batch to something with `pooled`.
    table: of the intact split, or some of it. pixels: a picture whose shorter side is longer is shrunk to so many
    before it is corrupted; 0 for never.
    """

    encode: Callable[[Batch], Any]
    dataset: Dataset
    split: str
    table: EmbeddingTable
    seed: int = 0
    batch: int = 128
    pixels: int = 0

    def tables(self, modality: str, corruption: Corruption, levels: Sequence[int]) -> dict[int, EmbeddingTable]:
        """The table at each level. Corrupted are the raw items, before the encoder's own preprocessing.

        Raises:
          UserError: an item cannot be read.
        """
        there = np.flatnonzero(self.table.present[modality])
        found = {level: self.table.embeddings[modality].copy() for level in levels}
        schema, transform = self.dataset.manifest.modality(modality), self.dataset.transforms[modality]
        for at in np.array_split(there, range(self.batch, len(there), self.batch)) if len(there) else ():
            rows = self.table.rows[at].tolist()
            studies = list(self._items(modality, rows, schema))
            for level in levels:
                worse = [
                    [corruption(x, level, schema, self.seed, row, i) for i, x in enumerate(items)]
                    for row, items in zip(rows, studies, strict=True)
                ]
                batch = self._batch(modality, worse, transform)
                found[level][at] = np.asarray(self.encode(batch).pooled[modality])[: len(at)]
        return {k: replace(self.table, embeddings=self.table.embeddings | {modality: x}) for k, x in found.items()}

    def example(self, modality: str, position: int) -> tuple[Any, Modality, int]:
        """The first item of an example of the table, as corruptions take it, its schema and its row."""
        row, schema = int(self.table.rows[position]), self.dataset.manifest.modality(modality)
        return next(self._items(modality, [row], schema))[0], schema, row

    def _items(self, modality: str, rows: Sequence[int], schema: Modality) -> Iterator[list[Any]]:
        for study in self.dataset.raw_items(self.split, rows):
            items = study[modality]
            yield [decoded(x, self.pixels) for x in items] if schema.kind == "image" else items

    def _batch(self, modality: str, studies: Sequence[list[Any]], transform: Transform) -> Batch:
        """Padded to the batch size, so that one shape is compiled."""
        text = transform.kind == "text"
        count = self.dataset.config.max_items.get(modality, transform.items if text else 1)
        rows = []
        for items in [*studies, *[[]] * (self.batch - len(studies))]:
            parts = [part for x in items for part in transform.split(x)] if text else items
            rows.append(_row([transform.prepare(x) for x in parts[:count]], transform, count))
        arrays: Mapping[str, Any] = stack(rows)
        n, items = len(rows), {modality: Items(arrays["value"], arrays["mask"])}
        return Batch(items, {}, np.zeros(n, np.float32), np.ones(n, bool), {}, np.arange(n, dtype=np.int32))


def _row(prepared: list[Any], transform: Transform, count: int) -> dict[str, Any]:
    values = [transform.finish(x, None) for x in prepared] + [transform.empty()] * (count - len(prepared))
    value = stack(values) if values else none_of(transform.empty())
    return {"value": value, "mask": np.arange(count) < len(prepared)}
