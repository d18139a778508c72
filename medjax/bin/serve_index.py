"""An embedding index that answers queries: what `medjax.bin.serve` does behind its page."""

import base64
import functools
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medjax.bin.serve_uploads import ACCEPTED, read_uploads
from medjax.data import Dataset
from medjax.errors import UserError, check_choice
from medjax.evaluation import store
from medjax.evaluation.embeddings import EmbeddingTable, embed_batches
from medjax.evaluation.index_search import RULES, STATES, join, search, states
from medjax.evaluation.thumbnails import preview
from medjax.methods.encoder import Encoder

MAX_RESULTS = 200
MAX_TEXT = 4000
_PREVIEWS = 1024  # kept in memory
_PROBED = 4  # rows that are embedded again, to see that index and encoder are of one making
_LIKE = 0.98  # cosine between two embeddings of one study that differ by hardware and number format alone
_PATIENCE = 60.0  # seconds that a query waits for those before it


class BusyError(Exception):
    """Too many queries are waiting for the encoder."""


@dataclass(frozen=True)
class Service:
    """Searches the table. split_of: str[n]. encoder: None where only stored studies can be the query. dataset: None
    where no study can be shown. notes: what somebody who looks at the page must know.
    """

    index: store.Index
    table: EmbeddingTable
    split_of: np.ndarray
    encoder: Encoder | None = None
    dataset: Dataset | None = None
    notes: tuple[str, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def create(cls, index: store.Index, tables: Mapping[str, EmbeddingTable], encoder=None, dataset=None, notes=()):
        """Joins the splits, and checks that encoder and data set are those of the index.

        Raises:
          UserError: they are not.
        """
        table, split_of = join(tables)
        check_data(index, dataset)
        check_encoder(index, tables, encoder, dataset)
        return cls(index, table, split_of, encoder, dataset, (*index.about["data"]["notes"], *notes))

    def about(self) -> dict[str, Any]:
        """What there is to search in, and by what."""
        data, checkpoint = self.index.about["data"], self.index.about["checkpoint"]
        kinds = {m: self.encoder.manifest.modality(m).kind for m in self.encoder.modalities} if self.encoder else {}
        return {
            "name": data["name"],
            "encoder": f"{self.index.about['subject']['name']}, step {checkpoint['step']}",
            "licence": data["licence"],
            "terms": list(data["terms"]),
            "notes": list(self.notes),
            "splits": {k: int((self.split_of == k).sum()) for k in dict.fromkeys(self.split_of.tolist())},
            "modalities": {m: int(p.sum()) for m, p in self.table.present.items()},
            "labels": list(self.table.label_names),
            "states": list(STATES),
            "text": "text" in kinds.values(),
            "files": [text for kind, text in ACCEPTED.items() if kind in kinds.values()],
            "pictures": self.dataset is not None,
            "max_text": MAX_TEXT,
        }

    def search(
        self,
        target: str,
        text: str = "",
        files: Sequence[tuple[str, bytes]] = (),
        like: tuple[int, str] | None = None,
        split: str = "",
        label: str = "",
        state: str = "present",
        k: int = 24,
    ) -> dict[str, Any]:
        """The k best studies for a query of any of text, files and a study of the index, as JSON.

        like: number of a study and its modality that stands for it; it is not among its own neighbours.

        Raises:
          UserError: what was sent cannot be used. BusyError: the encoder is.
        """
        if not 1 <= k <= MAX_RESULTS:
            raise UserError(f"between 1 and {MAX_RESULTS} results can be asked for, got {k}")
        keep = self._filter(split, label, state)
        queries = self._encode(text, files)
        if like is not None:
            number, modality = like
            if modality in queries:
                raise UserError(f"the query has two parts of modality {modality}; take one of them out")
            queries[modality] = self._stored(number, modality)
            keep[number] = False
        scorer = self.encoder.scorer() if self.encoder else None
        found = search(self.table, queries, target, k, keep, scorer)
        patient = None if like is None else self.table.patients[like[0]]
        return {
            "rule": found.rule,
            "explanation": RULES[found.rule],
            "query": sorted(queries),
            "target": target,
            "matching": found.matching,
            "results": [
                self.study(row, None if found.rule == "none" else score, patient)
                for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
            ],
        }

    def study(self, number: int, score: float | None = None, patient: int | None = None) -> dict[str, Any]:
        """What is known of a study; patient: that of the query."""
        table, labels = self.table, self.table.labels[number]
        named = bool(table.ids[number].any())
        sensitive = self.index.about["data"]["sensitive"]
        return {
            "number": number,
            "id": f"id-{np.ascontiguousarray(table.ids[number]).tobytes().hex()}" if named else f"row {number}",
            "split": str(self.split_of[number]),
            "score": score,
            "modalities": [m for m, p in table.present.items() if p[number]],
            "labels": [name for name, value in zip(table.label_names, labels, strict=True) if value > 0.5],
            "attributes": {} if sensitive else self._attributes(number),
            "same_patient": patient is not None and bool(table.patients[number] == patient),
        }

    def preview(self, number: int, modality: str) -> dict[str, Any]:
        """A study's picture (a data: address), text, or why there is neither.

        Raises:
          UserError: there is no such study or modality, or its record cannot be read.
        """
        self._check(number)
        check_choice("modality", modality, self.table.embeddings)
        return _preview(self, number, modality)

    @contextmanager
    def exclusive(self):
        """One at a time: JAX and matplotlib would share their memory and state.

        Raises:
          BusyError: those before took too long.
        """
        if not self.lock.acquire(timeout=_PATIENCE):
            raise BusyError("others are being served; try again")
        try:
            yield
        finally:
            self.lock.release()

    def __hash__(self) -> int:
        return id(self)

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self.table):
            raise UserError(f"there is no study {number}; the index has {len(self.table)}")

    def _filter(self, split: str, label: str, state: str) -> np.ndarray:
        keep = np.ones(len(self.table), bool)
        if split:
            check_choice("split", split, set(self.split_of.tolist()))
            keep &= self.split_of == split
        if label:
            check_choice("state", state, STATES)
            keep &= states(self.table, label) == state
        return keep

    def _encode(self, text: str, files: Sequence[tuple[str, bytes]]) -> dict[str, np.ndarray]:
        if not text and not files:
            return {}
        if self.encoder is None:
            raise UserError("this server has no encoder; start it with --workdir or --export to search by new inputs")
        schemas = {m: self.encoder.manifest.modality(m) for m in self.encoder.modalities}
        with self.exclusive():
            inputs = read_uploads(files, schemas)
            if text:
                if len(text) > MAX_TEXT:
                    raise UserError(f"the text has {len(text)} characters; the limit is {MAX_TEXT}")
                modality = next((m for m, schema in schemas.items() if schema.kind == "text"), None)
                if modality is None:
                    raise UserError("this encoder reads no text")
                inputs[modality] = text
            return self.encoder.embed(inputs)

    def _stored(self, number: int, modality: str) -> np.ndarray:
        self._check(number)
        check_choice("modality", modality, self.table.embeddings)
        if not self.table.present[modality][number]:
            raise UserError(f"study {number} has no {modality}")
        return self.table.embeddings[modality][number]

    def _attributes(self, number: int) -> dict[str, str]:
        out = {}
        for name, values in self.table.attributes.items():
            value, names = float(values[number]), self.index.attributes.get(name, ())
            if not np.isnan(value):
                out[name] = names[int(value)] if names else f"{round(value, 1):g}"
        return out


@functools.lru_cache(maxsize=_PREVIEWS)
def _preview(service: Service, number: int, modality: str) -> dict[str, Any]:
    if service.dataset is None:
        return {"withheld": "the data set is not here"}
    with service.exclusive():
        split, row = str(service.split_of[number]), int(service.table.rows[number])
        found = preview(service.dataset, split, row, modality)
    if found.png:
        return {"picture": f"data:image/png;base64,{base64.b64encode(found.png).decode()}", "alt": found.text}
    return {"withheld": found.text} if found.withheld else {"text": found.text}


def check_data(index: store.Index, dataset: Dataset | None) -> None:
    """Raises UserError unless the data set is the one that was embedded."""
    theirs = index.about["data"]["manifest_sha256"]
    if dataset is not None and dataset.manifest.digest() != theirs:
        raise UserError(
            f"the index is of data set {index.about['data']['name']!r} (manifest {str(theirs)[:12]}), and --data or "
            f"the run's data is {dataset.manifest.name!r} (manifest {dataset.manifest.digest()[:12]}); name the "
            "data set of the index with --data, or embed again"
        )


def check_encoder(index: store.Index, tables: Mapping[str, EmbeddingTable], encoder, dataset) -> None:
    """Raises UserError unless the encoder is the one that embedded: by its step and widths, and where the data set is
    there by embedding the first studies again."""
    if encoder is None:
        return
    theirs, again = index.about["checkpoint"]["step"], "embed again with this encoder, or name the one of the index"
    if encoder.step != theirs:
        raise UserError(f"the index was embedded at step {theirs}, and the encoder is of step {encoder.step}; {again}")
    lacking = sorted(set(index.modalities) ^ set(encoder.modalities))
    if lacking:
        raise UserError(f"index and encoder differ in the modalities {', '.join(lacking)}; {again}")
    split = next((k for k, t in tables.items() if len(t)), None)
    if dataset is None or split is None:
        return
    stored = tables[split].where(np.arange(min(_PROBED, len(tables[split]))))
    last = int(stored.rows[-1]) + 1
    fresh = embed_batches(encoder.encode, dataset.evaluation(split, last, last=last), index.labels)
    for m, x in stored.embeddings.items():
        y = fresh.embeddings[m]
        if x.shape != y.shape or (stored.present[m] & (_cosine(x, y) < _LIKE)).any():
            raise UserError(f"the encoder embeds {m} of the first studies otherwise than the index has them; {again}")


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float[n], of rows; 0 where one has no length."""
    return (x * y).sum(axis=1) / np.maximum(np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1), 1e-12)
