"""One record into the arrays of one row of a batch; a record that cannot be used becomes an invalid row."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from medjax.data.ids import text_id
from medjax.data.records import decode, decode_text, items_of
from medjax.data.transforms import Transform
from medjax.errors import UserError

log = logging.getLogger("medjax")
_MAX_LOGGED = 20


class Examples:
    """The rows of a split, by record number.

    labels: how many the data set has. max_items: `{modality: items a study may bring}`, by default one, or the
    sentences that a text's config asks for. cache: keep what `Transform.prepare` gives in memory, so that a record is
    read and decoded once.
    """

    def __init__(
        self, source, transforms: Mapping[str, Transform], labels: int, max_items: Mapping[str, int], cache: bool
    ):
        self._source, self._transforms = source, transforms
        self._counts = {m: max_items.get(m, t.items if t.kind == "text" else 1) for m, t in transforms.items()}
        self._cache: dict[int, dict[str, Any]] | None = {} if cache else None
        self._failures = 0
        self._warned: set[str] = set()
        self._labels = (labels,)

    def __len__(self) -> int:
        return len(self._source)

    def row(self, record: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """A row, augmented if `rng` is given."""
        prepared = self._prepared(record)
        items = {m: self._items(m, prepared["items"].get(m, []), rng) for m in self._transforms}
        return {**prepared["row"], "items": items}

    def placeholder(self) -> dict[str, Any]:
        """An invalid row of the right shapes."""
        return self._invalid()["row"] | {"items": {m: self._items(m, [], None) for m in self._transforms}}

    def _prepared(self, record: int) -> dict[str, Any]:
        if self._cache is not None and record in self._cache:
            return self._cache[record]
        try:
            prepared = self._prepare(decode(self._read(record)))
        except UserError as error:
            self._failures += 1
            if self._failures <= _MAX_LOGGED:
                log.warning("record %d cannot be used: %s", record, error)
            prepared = self._invalid()
        if self._cache is not None:
            self._cache[record] = prepared
        return prepared

    def _read(self, record: int) -> bytes:
        try:
            return self._source[record]
        except RuntimeError as error:  # ArrayRecord's own checksums
            raise UserError(f"the shard is damaged: {error}") from None

    def _prepare(self, record: Mapping[str, np.ndarray]) -> dict[str, Any]:
        raw = {m: items_of(record, m) for m in self._transforms}
        texts = [decode_text(x) for m, t in self._transforms.items() if t.kind == "text" for x in raw[m]]
        for m, t in self._transforms.items():
            if t.kind == "text":
                raw[m] = [part for x in raw[m] for part in t.split(x)]
        known = ~np.isnan(record["labels"])
        row = {
            "ids": {
                **{k: record[f"id/{k}"] for k in ("example", "group", "patient")},
                "text": text_id("\n".join(texts)),
            },
            "time": record["time"][0],
            "valid": np.bool_(True),
            "targets": {"labels": np.where(known, record["labels"], 0).astype(np.float32), "labels_mask": known},
        }
        return {"row": row, "items": {m: [self._transforms[m].prepare(x) for x in raw[m]] for m in raw}}

    def _invalid(self) -> dict[str, Any]:
        row = {
            "ids": {k: np.zeros(2, np.uint32) for k in ("example", "group", "patient", "text")},
            "time": np.float32(0),
            "valid": np.bool_(False),
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
        return {"value": stack(values), "mask": np.arange(n) < len(prepared)}

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
