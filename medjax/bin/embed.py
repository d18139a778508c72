"""Embeds data sets into tables: python -m medjax.bin.embed --workdir=RUN --data=DATA --output=DIR --splits=train,test.

The tables (`medjax.evaluation.store` documents their columns) feed every evaluation, `medjax.bin.serve` and other
programs. Parts that are done are kept when the program is stopped, and not embedded again.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.bin import cli
from medjax.bin.evaluation import EncoderSubject, load_subject
from medjax.config import to_dict
from medjax.data.batch import Batch
from medjax.data.manifest import SPLITS
from medjax.data.records import write_file
from medjax.data.sources.table import read_prompts
from medjax.errors import UserError, check_choice
from medjax.evaluation import store
from medjax.evaluation.embeddings import EmbeddingTable, embed_batches
from medjax.methods.encoder import Encoder
from medjax.sharding import Processes, is_main

_SPLITS = flags.DEFINE_list("splits", ["test"], "Splits to embed; all for every one.")
_FORMAT = flags.DEFINE_enum("format", "npz", list(store.ENDINGS), "Of the tables.")
_PART = flags.DEFINE_integer("part_size", 4096, "Rows of a split in a file.")
_PROMPTS = flags.DEFINE_string("prompts", "", "JSON of prompts to embed beside; default: those of the data set.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0; not needed on SLURM, GKE.")
_COUNT = flags.DEFINE_integer("process_count", 0, "Number of processes, with --coordinator.")
_INDEX = flags.DEFINE_integer("process_index", -1, "Index of this process, with --coordinator.")
_WORK = ".unfinished"
_FINGERPRINT = "of.json"


def main() -> None:
    """Embeds what is not there yet, then writes tables and index."""
    Processes(_COORDINATOR.value, _COUNT.value, _INDEX.value).start()
    subject = load_subject("embeddings")
    if not isinstance(subject, EncoderSubject):
        raise UserError("embed takes an encoder: pass --workdir or --export")
    if _PART.value < 1:
        raise UserError(f"--part_size={_PART.value} must be positive")
    splits = list(SPLITS) if _SPLITS.value == ["all"] else _SPLITS.value
    for split in splits:
        check_choice("split in --splits", split, subject.dataset.manifest.splits)
    prompts = read_prompts(_PROMPTS.value, subject.labels) if _PROMPTS.value else subject.findings
    work = subject.output / _WORK
    _claim(subject, work)
    parts = list(_parts(subject, splits))
    encode = _over_devices(subject.encoder)
    for number, (split, first, last) in enumerate(parts):
        path = work / _name(split, first)
        if number % jax.process_count() == jax.process_index() and not path.exists():
            _embed(subject, encode, split, first, last, path)
            print(f"{split}: rows {first} to {last - 1} embedded", flush=True)
    multihost_utils.sync_global_devices("medjax embeddings")
    if is_main():
        _finish(subject, splits, parts, work, prompts)


def _claim(subject: EncoderSubject, work: Path) -> None:
    """Says in the folder of unfinished parts what they are of.

    Raises:
      UserError: those that are there are of another encoder, data set or size.
    """
    mine = {
        "data": subject.data["manifest_sha256"],
        "subject": subject.name,
        "checkpoint": dict(subject.checkpoint),
        "part_size": _PART.value,
    }
    path = work / _FINGERPRINT
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise UserError(f"{work} holds unfinished parts of another encoder, data set or part size; delete it")
    work.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(mine).encode())


def _parts(subject: EncoderSubject, splits: list[str]) -> Iterator[tuple[str, int, int]]:
    for split in splits:
        rows = len(subject.dataset.source(split))
        for first in range(0, rows, _PART.value):
            yield split, first, min(first + _PART.value, rows)


def _name(split: str, first: int) -> str:
    return f"{split}-{first:09d}.npz"


def _over_devices(encoder: Encoder):
    """`encode`, with each batch shared out over this process's devices."""
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    everywhere, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    params, state = jax.device_put((encoder.params, encoder.state), everywhere)
    placed = replace(encoder, params=params, state=state)
    return lambda batch: placed.encode(jax.device_put(batch.select(encoder.modalities), rows))


def _embed(subject: EncoderSubject, encode, split: str, first: int, last: int, path: Path) -> None:
    """Writes a part with the hashes of patients and texts, which the finished table replaces by numbers."""
    devices = len(jax.local_devices())
    size = -(-min(flags.FLAGS.batch_size, last - first) // devices) * devices
    hashes: dict[str, list[np.ndarray]] = {"patient": [], "text": []}

    def batches() -> Iterator[Batch]:
        for batch in subject.dataset.evaluation(split, size, first=first, last=last):
            for k, found in hashes.items():
                found.append(batch.ids[k][batch.valid])
            yield batch

    table = embed_batches(encode, batches(), subject.labels)
    table = replace(table, rows=table.rows + first)
    store.write_part(path, store.columns(table) | {k: np.concatenate(x) for k, x in hashes.items()}, "npz")


def _finish(subject: EncoderSubject, splits, parts, work: Path, prompts) -> None:
    """Numbers patients and texts, writes tables and index, and takes the unfinished parts away."""
    output, files = subject.output, {}
    for split in splits:
        names = [_name(s, first) for s, first, _ in parts if s == split]
        attributes = subject.dataset.attributes(split)
        numbers = {k: _numbers([_column(work / name, k) for name in names]) for k in ("patient", "text")}
        files[split] = []
        for i, name in enumerate(names):
            found = store.read_part(work / name, "npz")
            found |= {k: of[i] for k, of in numbers.items()}
            found |= {f"attribute/{k}": x[found["row"]] for k, x in attributes.items()}
            path = output / f"{split}-{i:05d}{store.ENDINGS[_FORMAT.value]}"
            files[split].append(store.write_part(path, found, _FORMAT.value))
    table = store.from_columns(found, str(path))
    if "text" in subject.modalities and prompts:
        store.write_prompts(output, subject.encoder.embed_prompts(prompts))
    _index(subject, table, files, prompts).save(output)
    shutil.rmtree(work)
    total = sum(e["examples"] for of in files.values() for e in of)
    print(f"{total} examples of {', '.join(splits)} embedded: {output}")


def _column(path: Path, name: str) -> np.ndarray:
    with np.load(path) as found:
        return found[name]


def _numbers(hashes: list[np.ndarray]) -> list[np.ndarray]:
    numbers = np.unique(np.concatenate(hashes), axis=0, return_inverse=True)[1].reshape(-1)
    return np.split(numbers, np.cumsum([len(h) for h in hashes])[:-1])


def _index(subject: EncoderSubject, table: EmbeddingTable, files, prompts) -> store.Index:
    about = {"subject": {"kind": subject.kind, "name": subject.name}, "checkpoint": dict(subject.checkpoint)}
    params, objectives = subject.encoder.params, to_dict(subject.encoder.config["method"]).get("objectives", {})
    learnt = params.get("objectives", {}) if subject.scorer() else {}
    return store.Index(
        about=about | {"data": dict(subject.data)},
        kind=_FORMAT.value,
        modalities={m: x.shape[1] for m, x in table.embeddings.items()},
        labels=subject.labels,
        splits={k: tuple(v) for k, v in files.items()},
        findings=dict(prompts),
        attributes=dict(subject.attributes),
        objectives=objectives if learnt else {},
        log_scales={k: float(v["log_scale"]) for k, v in learnt.items()},
    )


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
