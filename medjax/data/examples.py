"""One record into the arrays of one row of a batch; a record that cannot be used becomes an invalid row."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from medjax.data.ids import text_id
from medjax.data.items import ChunkFiles, items_of
from medjax.data.records import decode, decode_text
from medjax.data.sampling.ledger import CAUSES, PADDING
from medjax.data.source_files import SourceFiles
from medjax.data.transforms import Transform
from medjax.errors import StorageError, UserError

log = logging.getLogger("medjax")
_MAX_LOGGED = 20
_IDS = ("example", "group", "patient")


class Examples:
    """The rows of a split of one data set, by record number.

    labels: how many the run has. max_items: `{modality: items a study may bring}`, by default one, or the sentences
    that a text's config asks for; 0 leaves the modality out. cache: keep what `Transform.prepare` gives in memory, so
    that a record is read and decoded once. columns: int[k], where the labels of this set stand among those of the run.
    number: of the set, for the ledger. files: of the source, for records that refer to them. chunks: of
    the split, for volumes.
    """

    def __init__(
        self,
        source,
        transforms: Mapping[str, Transform],
        labels: int,
        max_items: Mapping[str, int],
        cache: bool,
        columns: np.ndarray | None = None,
        number: int = 0,
        files: SourceFiles | None = None,
        chunks: ChunkFiles | None = None,
    ):
        self._source, self._transforms, self._files, self._chunks = source, transforms, files, chunks
        self._counts = {m: max_items.get(m, t.items if t.kind == "text" else 1) for m, t in transforms.items()}
        self._cache: dict[int, dict[str, Any]] | None = {} if cache else None
        self._failures = 0
        self._warned: set[str] = set()
        self._labels, self._columns = (labels,), np.arange(labels) if columns is None else columns
        self._number = np.uint8(number)

    def __len__(self) -> int:
        return len(self._source)

    def row(self, record: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """A row, augmented if `rng` is given. `origin` says which set it is of, and why it is invalid if it is."""
        prepared = self._prepared(record)
        items = {}
        for m in self._transforms:
            try:
                items[m] = self._items(m, prepared["items"].get(m, []), rng)
            except UserError as error:  # an item that is read piece by piece, such as a volume
                return self.placeholder(self._failed(record, m, error))
        return {**prepared["row"], "items": items}

    def placeholder(self, cause: int = PADDING) -> dict[str, Any]:
        """An invalid row of the right shapes."""
        return self._invalid(cause)["row"] | {"items": {m: self._items(m, [], None) for m in self._transforms}}

    def _prepared(self, record: int) -> dict[str, Any]:
        if self._cache is not None and record in self._cache:
            return self._cache[record]
        stage = "shard"
        try:
            data = self._read(record)
            stage = "record"
            arrays = decode(data)
            prepared, texts = {"row": self._row(arrays), "items": {}}, []
            for modality in self._transforms:
                stage = modality
                prepared["items"][modality], found = self._prepare(modality, arrays)
                texts += found
            prepared["row"]["ids"]["text"] = text_id("\n".join(texts))
        except UserError as error:
            if stage == "shard" and isinstance(error, StorageError):  # no fault of the record: the run stops
                raise
            prepared = self._invalid(self._failed(record, stage, error))
        if self._cache is not None:
            self._cache[record] = prepared
        return prepared

    def _failed(self, record: int, stage: str, error: UserError) -> int:
        """Logs the failure and gives its number for the ledger."""
        self._failures += 1
        if self._failures <= _MAX_LOGGED:
            log.warning("record %d cannot be used: %s", record, error)
        return 1 + [*CAUSES, *self._transforms].index(stage)

    def _read(self, record: int) -> bytes:
        try:
            return self._source[record]
        except RuntimeError as error:  # ArrayRecord's own checksums
            raise UserError(f"the shard is damaged: {error}") from None

    def _row(self, record: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """All of a row but the items and the text's id."""
        missing = [k for k in (*(f"id/{name}" for name in _IDS), "time", "labels") if k not in record]
        if missing or record["labels"].shape != self._columns.shape:
            what = f"lacks {', '.join(missing)}" if missing else "has another number of labels than its data set"
            raise UserError(f"the record {what}; build the data set again")
        labels = np.full(self._labels, np.nan, np.float32)
        labels[self._columns] = record["labels"]
        known = ~np.isnan(labels)
        return {
            "ids": {k: record[f"id/{k}"] for k in _IDS},
            "time": record["time"][0],
            "valid": np.bool_(True),
            "origin": {"set": self._number, "cause": np.uint8(0)},
            "targets": {"labels": np.where(known, labels, 0).astype(np.float32), "labels_mask": known},
        }

    def _prepare(self, modality: str, record: Mapping[str, np.ndarray]) -> tuple[list[Any], list[str]]:
        """The prepared items of a modality, and its texts."""
        transform, raw = self._transforms[modality], items_of(record, modality, self._files, self._chunks)
        texts = []
        if transform.kind == "text":
            try:
                texts = [decode_text(x) for x in raw]
            except UnicodeDecodeError as error:
                raise UserError(f"{modality} is not UTF-8 ({error.reason} at byte {error.start})") from None
            raw = [part for x in raw for part in transform.split(x)]
        return [transform.prepare(x) for x in raw], texts

    def _invalid(self, cause: int) -> dict[str, Any]:
        row = {
            "ids": {k: np.zeros(2, np.uint32) for k in (*_IDS, "text")},
            "time": np.float32(0),
            "valid": np.bool_(False),
            "origin": {"set": self._number, "cause": np.uint8(cause)},
            "targets": {"labels": np.zeros(self._labels, np.float32), "labels_mask": np.zeros(self._labels, bool)},
        }
        return {"row": row, "items": {}}

    def _items(self, modality: str, prepared: list[Any], rng: np.random.Generator | None) -> dict[str, Any]:
        transform, n = self._transforms[modality], self._counts[modality]
        if len(prepared) > n:
            self._warn_of_more(modality, len(prepared))
            chosen = range(n) if rng is None else np.sort(rng.choice(len(prepared), n, replace=False))
            prepared = [prepared[i] for i in chosen]
        values = [transform.finish(x, rng) for x in prepared] + [transform.empty()] * (n - len(prepared))
        value = stack(values) if values else none_of(transform.empty())
        return {"value": value, "mask": np.arange(n) < len(prepared)}

    def _warn_of_more(self, modality: str, found: int) -> None:
        if modality not in self._warned:
            self._warned.add(modality)
            log.warning(
                "a study has %d items of %s and %d are taken (config.data.max_items, sentences of a text); "
                "further such studies are not mentioned",
                *(found, modality, self._counts[modality]),
            )


def stack(rows: list[Any]) -> Any:
    """Stacks the leaves of equal trees of dicts."""
    if isinstance(rows[0], Mapping):
        return {k: stack([row[k] for row in rows]) for k in rows[0]}
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


def none_of(row: Any) -> Any:
    """A stack of no such rows."""
    if isinstance(row, Mapping):
        return {k: none_of(v) for k, v in row.items()}
    return np.zeros((0, *np.shape(row)), np.asarray(row).dtype)
