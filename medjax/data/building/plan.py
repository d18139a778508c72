"""What a build will do: which studies go to which shard. A build that was stopped goes on only with the same plan."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.building.shards import Encoder, ShardTask, encoded_bytes
from medjax.data.building.splits import Splitting, assign
from medjax.data.manifest import FORMAT, SPLITS
from medjax.data.privacy.licence import Licence
from medjax.data.records import write_file
from medjax.data.sources.base import Source, Study
from medjax.data.tokenizer import MIN_PATIENTS
from medjax.errors import UserError

FILE = "build.plan.json"
_SAMPLED = 16
_SHARD_BYTES = 2**28
_MOST_SHARDS, _FEWEST, _MOST = 64, 256, 4096


@dataclass(frozen=True)
class Options:
    """How to build. max_rejected_fraction: share of studies that may be unreadable before the build stops.

    tokenizer: folder of one to use; empty trains one. workers: processes that write shards. id_key: secret that keys
    the hashes of patient and study ids; sensitive data are never built without, by default with that of
    `medjax.data.privacy.keys.default_key`. records_per_shard: 0 chooses by the size of the studies, at most 256 MiB a
    shard. index_only: records refer to the source's files and hold none of them. scrub, flagged, file_names_are_safe:
    see `medjax.data.privacy.protect.Privacy`. min_patients: how many patients' texts must have a word before it enters
    a trained vocabulary; 0 is 5 for sensitive data, 1 for others. patient_space: see Manifest; empty is the source's
    own. terms: of the licence, where the source does not know them.
    """

    splitting: Splitting = field(default_factory=Splitting)
    max_rejected_fraction: float = 0.01
    tokenizer: str = ""
    vocab_size: int = 8192
    min_frequency: int = 2
    workers: int = 1
    records_per_shard: int = 0
    id_key: bytes = b""
    index_only: bool = False
    scrub: str = ""
    flagged: str = "keep"
    file_names_are_safe: bool = False
    min_patients: int = 0
    patient_space: str = ""
    terms: Licence | None = None


_FREE = ("workers", "max_rejected_fraction")  # what may change between a build and its continuation


@dataclass(frozen=True)
class Plan:
    """tasks: the shards, in the order of splits and studies. encoder: what makes records of studies. bytes_per_study: a
    guess from a few of them; None if none could be read.
    """

    source: Source
    options: Options
    encoder: Encoder
    tasks: tuple[ShardTask, ...]
    bytes_per_study: float | None

    @property
    def studies(self) -> int:
        """How many there are."""
        return sum(len(task.studies) for task in self.tasks)

    @property
    def rejections_allowed(self) -> int:
        """How many studies may be unreadable."""
        return int(self.options.max_rejected_fraction * self.studies + 1e-9)

    @property
    def min_patients(self) -> int:
        """How many patients must have a word for the tokenizer to learn it."""
        return self.options.min_patients or (MIN_PATIENTS if self.source.schema.sensitive else 1)

    def estimate(self, done: int = 0) -> int:
        """Bytes that the studies will take of which `done` are written already; 0 where no guess could be made."""
        return round((self.bytes_per_study or 0) * (self.studies - done))

    def __str__(self) -> str:
        guess = f"about {size(self.estimate())}" if self.bytes_per_study else "of unknown size"
        return f"{self.studies} studies, {guess}, in {len(self.tasks)} shards"

    def check_space(self, directory: Path, done: int) -> None:
        """Raises UserError where the disk has not the room for what is still to be written."""
        needed, free = self.estimate(done), shutil.disk_usage(directory).free
        if needed > free:
            raise UserError(
                f"about {size(needed)} are still to be written and {directory} has {size(free)} left; make room, "
                "choose another --output, or pass --index_only to refer to the files of the source"
            )


def make_plan(source: Source, directory: Path, options: Options) -> Plan:
    """Lists the studies, splits them by patient and cuts each split into shards; notes it in the folder.

    Raises:
      UserError: the folder holds part of a build of something else, or the studies cannot be split.
    """
    studies = source.studies()
    splits = assign(studies, options.splitting)
    encoder = Encoder(source.schema, directory, options.id_key, getattr(source, "root", None), options.index_only)
    path, digest = directory / FILE, _digest(source, studies, splits, options)
    noted = _noted(path)
    if noted is None:
        guess = _sample(encoder, studies)
        per_shard = options.records_per_shard or _records_per_shard(len(studies), guess)
        noted = {"digest": digest, "bytes_per_study": guess, "records_per_shard": per_shard}
        write_file(path, json.dumps(noted).encode())
    elif noted["digest"] != digest:
        raise UserError(
            f"{directory} holds part of a build of another source or with other options; repeat those to go on with "
            "it, or remove the folder"
        )
    tasks = []
    for split in SPLITS:
        chosen = [study for study, its in zip(studies, splits, strict=True) if its == split]
        for number, first in enumerate(range(0, len(chosen), noted["records_per_shard"])):
            part = tuple(chosen[first : first + noted["records_per_shard"]])
            tasks.append(ShardTask(split, number, part))
    return Plan(source, options, encoder, tuple(tasks), noted["bytes_per_study"])


def _noted(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        noted = json.loads(path.read_text())
        return {k: noted[k] for k in ("digest", "bytes_per_study", "records_per_shard")}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; remove the folder and build again") from None


def _sample(encoder: Encoder, studies: Sequence[Study]) -> float | None:
    """Mean bytes of a record, of studies at even distances; None if none can be read."""
    at = np.unique(np.linspace(0, len(studies) - 1, min(_SAMPLED, len(studies))).astype(int))
    sizes = []
    for i in at:
        try:
            sizes.append(encoded_bytes(encoder, studies[i]))
        except UserError:
            continue  # counted when its shard is written
    return float(np.mean(sizes)) if sizes else None


def _records_per_shard(studies: int, bytes_per_study: float | None) -> int:
    """Shards of at most 256 MiB, many enough for many processes, and none of them tiny where studies are small."""
    even = min(max(-(-studies // _MOST_SHARDS), _FEWEST), _MOST)
    return max(1, min(even, int(_SHARD_BYTES // max(bytes_per_study or 1, 1))))


def _digest(source: Source, studies: Sequence[Study], splits: Sequence[str], options: Options) -> str:
    """SHA-256 of all that decides the bytes of the data set, but not of the files that the source will read."""
    free = {name: None for name in _FREE}
    digest = hashlib.sha256(repr([FORMAT, _state(source), _state(dataclasses.replace(options, **free))]).encode())
    digest.update(json.dumps(dataclasses.asdict(source.schema), sort_keys=True).encode())
    for study, split in zip(studies, splits, strict=True):
        digest.update(repr([_state(study), split]).encode())
    return digest.hexdigest()


def _state(value: Any, depth: int = 8) -> Any:
    """What tells a source from another, without what changes from process to process, such as addresses."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return hashlib.sha256(value.tobytes()).hexdigest()
    if depth and isinstance(value, list | tuple):
        return [_state(x, depth - 1) for x in value]
    if depth and isinstance(value, dict):
        return [[str(k), _state(x, depth - 1)] for k, x in value.items()]
    if isinstance(value, partial):
        inside = {"args": value.args, "keywords": value.keywords}
    elif dataclasses.is_dataclass(value):
        inside = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    else:
        inside = {} if callable(value) else getattr(value, "__dict__", {})
    return [type(value).__qualname__, _state(inside, depth - 1) if depth else None]


def size(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
