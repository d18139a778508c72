"""From a source to a data set: read every study, split by patient, write records, manifest and tokenizer."""

import json
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medjax.data import tokenizer
from medjax.data.ids import hash_id
from medjax.data.manifest import FILE, SPLITS, Manifest, Modality, Split, read
from medjax.data.records import Example, ShardWriter, decode_text, encode
from medjax.data.sources.base import Source, Study
from medjax.data.splits import Splitting, assign
from medjax.errors import UserError

REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class Options:
    """How to build. max_rejected_fraction: share of studies that may be unreadable before the build stops.

    tokenizer: folder of one to use; empty trains one. workers: processes that read studies. id_key: secret that
    keys the hashes of patient and study ids.
    """

    splitting: Splitting = field(default_factory=Splitting)
    max_rejected_fraction: float = 0.01
    tokenizer: str = ""
    vocab_size: int = 8192
    min_frequency: int = 2
    workers: int = 1
    records_per_shard: int = 4096
    id_key: bytes = b""


def build_dataset(source: Source, directory: Path, options: Options, report: Callable[[int, int], None]) -> Manifest:
    """Builds the data set in `directory`; the manifest is written last, so that half a build is none.

    report: called with (studies done, studies in all).

    Raises:
      UserError: a data set is there already, too many studies are unreadable (listed in rejected.jsonl), a patient
        stands in two splits, or a split is empty.
    """
    if (directory / FILE).exists():
        raise UserError(f"there is a data set at {directory} already; remove it or choose another --output")
    if options.tokenizer:
        tokenizer.load(options.tokenizer)  # before hours of reading, not after
    directory.mkdir(parents=True, exist_ok=True)
    studies = source.studies()
    splits = assign(studies, options.splitting)
    writer = _Writer(source, directory, options)
    with _RejectionLog(directory / REJECTED, options.max_rejected_fraction, len(studies)) as rejections:
        for done, (study, split, result) in enumerate(
            zip(studies, splits, _read_all(studies, options.workers), strict=True)
        ):
            if not isinstance(result, UserError):
                result = writer.add(result, split)
            if isinstance(result, UserError):
                rejections.add(study, result)
            report(done + 1, len(studies))
    manifest = replace(writer.finish(), rejected=rejections.count)
    manifest.save(directory)
    return read(directory)  # as everyone will see it: JSON turns a rate of 100 into 100.0, and the digest with it


def _read_one(study: Study) -> Example | UserError:
    try:
        return study.read()
    except UserError as error:
        return error


def _read_all(studies: Sequence[Study], workers: int) -> Iterator[Example | UserError]:
    if workers <= 1:
        yield from map(_read_one, studies)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_read_one, studies, chunksize=16)


class _RejectionLog:
    """rejected.jsonl, and the limit beyond which a build stops."""

    def __init__(self, path: Path, limit: float, total: int):
        self._path, self._limit, self._total = path, limit, total
        self.count = 0

    def __enter__(self) -> "_RejectionLog":
        self._file = self._path.open("w")
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def add(self, study: Study, error: UserError) -> None:
        self.count += 1
        self._file.write(json.dumps({"example": study.name, "reason": str(error)}) + "\n")
        self._file.flush()
        if self.count > self._limit * self._total:
            raise UserError(
                f"{self.count} of {self._total} studies are unreadable, more than --max_rejected_fraction="
                f"{self._limit}; the last: {error}; all are listed in {self._path}"
            )


class _Writer:
    """Writes records split by split, and keeps what the manifest and the transforms need to know of them."""

    def __init__(self, source: Source, directory: Path, options: Options):
        self._schema, self._directory, self._options = source.schema, directory, options
        self._shards = {s: ShardWriter(directory, s, options.records_per_shard) for s in SPLITS}
        self._patients: dict[str, set[str]] = {s: set() for s in SPLITS}
        self._present = {s: dict.fromkeys(self._schema.modalities, 0) for s in SPLITS}
        self._positive = {s: dict.fromkeys(self._schema.labels, 0) for s in SPLITS}
        self._texts: list[str] = []
        self._labs: dict[str, list[np.ndarray]] = {}

    def add(self, example: Example, split: str) -> Example | UserError:
        """Writes one example, or says what is wrong with it."""
        try:
            record = self._record(example)
        except UserError as error:
            return error
        self._shards[split].write(encode(record))
        self._patients[split].add(example.patient_id)
        for m in example.items:
            self._present[split][m] += 1
        for name, value in example.labels.items():
            self._positive[split][name] += value == 1
        if split == "train":
            self._learn(example)
        return example

    def _record(self, example: Example) -> dict[str, np.ndarray]:
        if not example.patient_id:
            raise UserError("the patient is unknown; name the patient or drop the row")
        record = {}
        for modality, items in example.items.items():
            kind = self._schema.modalities[modality].kind
            for i, item in enumerate(items):
                _check_item(kind, modality, item)
                record[f"{modality}/{i}"] = item
        key = self._options.id_key
        for name, value in (
            ("example", example.example_id),
            ("group", example.group_id),
            ("patient", example.patient_id),
        ):
            record[f"id/{name}"] = hash_id(value, key)
        record["time"] = np.array([example.time], np.float32)
        record["labels"] = np.array([example.labels.get(k, math.nan) for k in self._schema.labels], np.float32)
        record |= {f"boxes/{k}": np.asarray(v, np.float32) for k, v in example.boxes.items()}
        record |= {f"factor/{k}": np.array([v], np.float32) for k, v in example.factors.items()}
        return record

    def _learn(self, example: Example) -> None:
        for modality, items in example.items.items():
            kind = self._schema.modalities[modality].kind
            if kind == "text":
                self._texts += [decode_text(x) for x in items]
            elif kind == "labs":
                self._labs.setdefault(modality, []).extend(items)

    def finish(self) -> Manifest:
        """Closes the shards, trains the tokenizer, and makes the manifest."""
        for shards in self._shards.values():
            shards.close()
        splits = {}
        for s in SPLITS:
            examples = sum(shard["records"] for shard in self._shards[s].shards)
            if not examples:
                raise UserError(f"every example of the {s} split was rejected; see {self._directory / REJECTED}")
            counts = len(self._patients[s]), self._present[s], self._positive[s]
            splits[s] = Split(tuple(self._shards[s].shards), examples, *counts)
        schema = self._schema
        modalities = {
            m: _described(x, self._labs.get(m, [])) if x.kind == "labs" else x for m, x in schema.modalities.items()
        }
        return Manifest(
            name=schema.name,
            source=schema.source,
            licence=schema.licence,
            synthetic=schema.synthetic,
            sensitive=schema.sensitive,
            texts_from_labels=schema.texts_from_labels,
            patients_known=schema.patients_known,
            modalities=modalities,
            labels=schema.labels,
            findings=schema.findings,
            splits=splits,
            notes=schema.notes,
            tokenizer=self._tokenizer(),
        )

    def _tokenizer(self) -> str | None:
        if not any(x.kind == "text" for x in self._schema.modalities.values()):
            return None
        options = self._options
        if options.tokenizer:
            tokenizer.adopt(options.tokenizer, self._directory)
        else:
            tokenizer.train(self._texts, self._directory, options.vocab_size, options.min_frequency)
        tokenizer.check_vocabulary(tokenizer.load(self._directory / tokenizer.FOLDER), self._texts[:200])
        return tokenizer.FOLDER


def _check_item(kind: str, modality: str, item: np.ndarray) -> None:
    """Raises UserError for what no transform could use."""
    if kind == "text" and not decode_text(item).strip():
        raise UserError(f"{modality} is empty text")
    if kind == "ecg" and not np.isfinite(item).all():
        raise UserError(f"{modality} holds samples that are not numbers")
    if kind == "labs" and np.isnan(item).all():
        raise UserError(f"{modality} holds no value at all")


def _described(labs: Modality, rows: list[np.ndarray]) -> Modality:
    """The schema of lab tests with their distributions, over finite training values."""
    table = np.stack(rows).astype(np.float64) if rows else np.zeros((0, len(labs.names)))
    statistics, percentiles = {}, {}
    for name, column in zip(labs.names, table.T, strict=True):
        finite = column[np.isfinite(column)]
        at = np.percentile(finite, np.arange(1, 100)) if finite.size else np.zeros(99)
        percentiles[name] = tuple(at.tolist())
        statistics[name] = _statistics(column, finite, at[0], at[-1])
    return replace(labs, statistics=statistics, percentiles=percentiles)


def _statistics(column: np.ndarray, finite: np.ndarray, low: float, high: float) -> tuple[float, ...]:
    """Mean, std, 1st and 99th percentile, share observed.

    Mean and std are of values clipped to the percentiles, so that one slip of the pen does not set the scale.
    """
    if not finite.size:
        return (0.0, 1.0, 0.0, 0.0, 0.0)
    clipped = finite.clip(low, high)
    observed = float(np.mean(~np.isnan(column)))
    return (float(clipped.mean()), float(clipped.std() or 1.0), float(low), float(high), observed)
