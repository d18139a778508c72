"""One shard of a build: its studies read, checked, encoded and written, with a receipt of what the manifest needs."""

import base64
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.ids import as_number, hash_id
from medjax.data.items import FileItem, refer, store
from medjax.data.records import Example, RecordFile, decode_text, encode, write_file
from medjax.data.sources.base import Schema, Study
from medjax.errors import UserError

SHARD, CHUNKS, RECEIPT = ".array_record", ".chunks.array_record", ".receipt.json"


@dataclass(frozen=True)
class ShardTask:
    """A fixed list of studies of one split, and the number of their shard."""

    split: str
    number: int
    studies: tuple[Study, ...]

    @property
    def stem(self) -> str:
        """`train-00003`."""
        return f"{self.split}-{self.number:05d}"


@dataclass
class Receipt:
    """What a shard holds. shard: its entry in the manifest; None where every study was rejected. rejected: example and
    reason of each. patients: uint64[n], sorted hashes. present, positive, flagged: studies by modality, label and flag.
    labs, texts: the values and the (hashed patient, text) of the training split, from which percentiles and tokenizer
    are made. complete: False if writing stopped because too many were rejected.
    """

    shard: dict[str, Any] | None = None
    studies: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)
    patients: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    present: Counter = field(default_factory=Counter)
    positive: Counter = field(default_factory=Counter)
    flagged: Counter = field(default_factory=Counter)
    labs: dict[str, np.ndarray] = field(default_factory=dict)
    texts: list[tuple[int, str]] = field(default_factory=list)
    complete: bool = True

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        values = vars(self) | {"patients": _pack(self.patients), "labs": {m: _pack(x) for m, x in self.labs.items()}}
        write_file(path, json.dumps(values).encode())

    @classmethod
    def load(cls, path: Path) -> "Receipt":
        """The inverse of `save`."""
        values = json.loads(path.read_text())
        counts = {k: Counter(values[k]) for k in ("present", "positive", "flagged")}
        labs = {m: _unpack(x) for m, x in values["labs"].items()}
        return cls(**values | counts | {"patients": _unpack(values["patients"]), "labs": labs})


def _pack(array: np.ndarray) -> str:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return base64.b64encode(out.getvalue()).decode()


def _unpack(text: str) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)


@dataclass(frozen=True)
class Encoder:
    """Makes records of examples. root: the folder of the source's files, which index-only records name."""

    schema: Schema
    directory: Path
    id_key: bytes = b""
    root: Path | None = None
    index_only: bool = False

    def __post_init__(self):
        if self.index_only and self.root is None:
            raise UserError("--index_only needs a source that reads files of a folder; this one makes its items itself")

    def check(self, example: Example) -> dict[str, list[Any]]:
        """The items of an example, those in files read.

        Raises:
          UserError: the patient is unknown, a file cannot be read, or an item is nothing that a transform could use.
        """
        if not example.patient_id:
            raise UserError("the patient is unknown; name the patient or drop the row")
        loaded = {}
        for modality, items in example.items.items():
            if modality not in self.schema.modalities:
                raise UserError(f"an item of {modality!r}, which the source does not declare")
            loaded[modality] = [x.load() if isinstance(x, FileItem) else x for x in items]
            for item in loaded[modality]:
                check_item(self.schema.modalities[modality].kind, modality, item)
        return loaded

    def encode(self, example: Example, loaded: Mapping[str, list[Any]], chunks: Any) -> bytes:
        """A checked example as a record; voxels go to `chunks`, a RecordFile or what counts as one."""
        record: dict[str, np.ndarray] = {}
        for modality, items in example.items.items():
            for i, item in enumerate(items):
                key = f"{modality}/{i}"
                if self.index_only and isinstance(item, FileItem):
                    record |= refer(key, item, self.root)
                else:
                    record |= store(key, loaded[modality][i], chunks)
        for name in ("example", "group", "patient"):
            record[f"id/{name}"] = hash_id(getattr(example, f"{name}_id"), self.id_key)
        record["time"] = np.array([example.time], np.float32)
        record["labels"] = np.array([example.labels.get(k, math.nan) for k in self.schema.labels], np.float32)
        record |= {f"boxes/{k}": np.asarray(v, np.float32) for k, v in example.boxes.items()}
        record |= {f"factor/{k}": np.array([v], np.float32) for k, v in example.factors.items()}
        return encode(record)


def write_shard(encoder: Encoder, task: ShardTask, allowed: int, tick: Callable[[], None]) -> Receipt:
    """Writes the shard of a task and, when it is complete, its receipt.

    allowed: how many studies may be rejected. tick: called after each study; what it raises leaves nothing written.
    """
    receipt, patients = Receipt(studies=len(task.studies)), []
    with ExitStack() as files:
        shard, chunks = (
            files.enter_context(RecordFile(encoder.directory / f"{task.stem}{ending}")) for ending in (SHARD, CHUNKS)
        )
        for study in task.studies:
            try:
                example = study.read()
                loaded = encoder.check(example)
                shard.write(encoder.encode(example, loaded, chunks))
            except UserError as error:
                receipt.rejected.append({"example": study.name, "reason": str(error)})
                if len(receipt.rejected) > allowed:
                    return replace(receipt, complete=False)
            except Exception as error:
                error.add_note(f"while reading {study.name}")
                raise
            else:
                patients.append(as_number(hash_id(example.patient_id, encoder.id_key)))
                _count(receipt, example, loaded)
                if task.split == "train":
                    _learn(receipt, patients[-1], loaded, encoder.schema)
            tick()
        receipt.patients = np.unique(np.array(patients, np.uint64))
        if shard.records:
            receipt.shard = shard.finish()
            if chunks.records:
                receipt.shard["chunks"] = chunks.finish()
    receipt.labs = {m: np.stack(rows) for m, rows in receipt.labs.items()}
    receipt.save(encoder.directory / f"{task.stem}{RECEIPT}")
    return receipt


def _count(receipt: Receipt, example: Example, loaded: Mapping[str, list[Any]]) -> None:
    receipt.present.update(loaded.keys())
    receipt.positive.update(name for name, value in example.labels.items() if value == 1)
    receipt.flagged.update(example.flags)


def _learn(receipt: Receipt, patient: int, loaded: Mapping[str, list[Any]], schema: Schema) -> None:
    for modality, items in loaded.items():
        kind = schema.modalities[modality].kind
        if kind == "text":
            receipt.texts += [(patient, decode_text(x)) for x in items]
        elif kind == "labs":
            receipt.labs.setdefault(modality, []).extend(items)


def encoded_bytes(encoder: Encoder, study: Study) -> int:
    """About how many bytes a study takes in a shard, which ArrayRecord compresses (zstd; zlib's fastest comes near).

    Raises:
      UserError: it cannot be read.
    """
    example, chunks = study.read(), _Measured()
    return len(zlib.compress(encoder.encode(example, encoder.check(example), chunks), 1)) + chunks.bytes


@dataclass
class _Measured:
    """Stands for a RecordFile, of which only the size is asked."""

    name: str = ""
    records: int = 0
    bytes: int = 0

    def write(self, data: bytes) -> None:
        self.records += 1
        self.bytes += len(data)


def check_item(kind: str, modality: str, item: Any) -> None:
    """Raises UserError for what no transform could use."""
    if kind == "text" and not decode_text(item).strip():
        raise UserError(f"{modality} is empty text")
    if kind == "ecg" and not np.isfinite(item).all():
        raise UserError(f"{modality} holds samples that are not numbers")
    if kind == "labs" and np.isnan(item).all():
        raise UserError(f"{modality} holds no value at all")
