"""Embeds data sets into tables: python -m medjax.bin.embed --workdir=RUN --data=DATA --output=DIR --splits=train,test.

The tables (`medjax.evaluation.store` documents their columns) feed every evaluation, `medjax.bin.serve` and other
programs. Parts that are done are kept when the program is stopped, and not embedded again. With --features=tokens the
features of patches, slices and words are written beside them, with the places in the original that they stand for
(`medjax.evaluation.token_store`).
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
from medjax.data.records import sha256, write_file
from medjax.data.sources.table import read_prompts
from medjax.errors import UserError, check_choice
from medjax.evaluation import store, token_store
from medjax.evaluation.embeddings import EmbeddingTable, embed_batches
from medjax.methods.encoder import Encoder
from medjax.methods.towers import unflatten
from medjax.sharding import Processes, is_main

_SPLITS = flags.DEFINE_list("splits", ["test"], "Splits to embed; all for every one.")
_FORMAT = flags.DEFINE_enum("format", "npz", list(store.ENDINGS), "Of the tables.")
_PART = flags.DEFINE_integer("part_size", None, "Rows of a split in a file; default: 4096, with tokens 256.")
_FEATURES = flags.DEFINE_enum(
    "features", "pooled", ["pooled", "tokens"], "Embeddings of studies, or beside them those of patches and words."
)
_DTYPE = flags.DEFINE_enum("token_dtype", "float16", ["float16", "float32"], "Of features of patches and words.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace finished tables at the same place.")
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
    if _part_size() < 1:
        raise UserError(f"--part_size={_part_size()} must be positive")
    if (subject.output / store.INDEX).is_file() and not _OVERWRITE.value:
        raise UserError(
            f"{subject.output} holds finished tables; pass --overwrite to replace them, or another --output"
        )
    splits = list(SPLITS) if _SPLITS.value == ["all"] else _SPLITS.value
    for split in splits:
        check_choice("split in --splits", split, subject.dataset.manifest.splits)
    prompts = read_prompts(_PROMPTS.value, subject.labels) if _PROMPTS.value else subject.findings
    work = subject.output / _WORK
    _claim(subject, work)
    parts = list(_parts(subject, splits))
    encode, tokens = _over_devices(subject.encoder)
    for number, (split, first, last) in enumerate(parts):
        path = work / _name(split, first)
        if number % jax.process_count() == jax.process_index() and not path.exists():
            if _FEATURES.value == "tokens":
                _embed_tokens(subject, tokens, split, first, last, work)
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
        "part_size": _part_size(),
        "features": _DTYPE.value if _FEATURES.value == "tokens" else "pooled",
    }
    path = work / _FINGERPRINT
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise UserError(f"{work} holds unfinished parts of another encoder, data set or part size; delete it")
    work.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(mine).encode())


def _parts(subject: EncoderSubject, splits: list[str]) -> Iterator[tuple[str, int, int]]:
    for split in splits:
        rows = len(subject.dataset.source(split))
        for first in range(0, rows, _part_size()):
            yield split, first, min(first + _part_size(), rows)


def _part_size() -> int:
    if _PART.value is not None:
        return _PART.value
    return 256 if _FEATURES.value == "tokens" else 4096


def _name(split: str, first: int) -> str:
    return f"{split}-{first:09d}.npz"


def _over_devices(encoder: Encoder):
    """`encode` and `Tokens`, with each batch shared out over this process's devices."""
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    everywhere, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    params, state = jax.device_put((encoder.params, encoder.state), everywhere)
    placed = replace(encoder, params=params, state=state)
    towers = jax.jit(lambda params, state, batch: _tokens(placed, params, state, batch))

    def put(batch: Batch) -> Batch:
        return jax.device_put(batch.select(encoder.modalities), rows)

    return lambda batch: placed.encode(put(batch)), lambda batch: towers(params, state, put(batch))


def _tokens(encoder: Encoder, params, state, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
    """What leaves the towers, before any projection; see `token_store.Tokens`."""
    found = {}
    for m in encoder.modalities:
        features, _ = encoder.method.towers.apply(params, state.get("batch_stats", {}), m, batch, None, False)
        found[m] = unflatten(features.patches, batch.items[m]), unflatten(features.patch_mask, batch.items[m])
    return found


def _batch_size(first: int, last: int) -> int:
    devices = len(jax.local_devices())
    return -(-min(flags.FLAGS.batch_size, last - first) // devices) * devices


def _embed_tokens(subject: EncoderSubject, tokens, split: str, first: int, last: int, work: Path) -> None:
    encoder, dataset = subject.encoder, subject.dataset
    towers = {
        m: (encoder.transforms[m], encoder.method.towers.modules[m], encoder.manifest.modality(m).rate)
        for m in encoder.modalities
    }
    found = token_store.columns(
        tokens,
        dataset.evaluation(split, _batch_size(first, last), first=first, last=last),
        lambda rows: dataset.raw_items(split, rows),
        towers,
        first,
        _DTYPE.value,
    )
    store.write_part(work / f"tokens-{_name(split, first)}", found, "npz")


def _embed(subject: EncoderSubject, encode, split: str, first: int, last: int, path: Path) -> None:
    """Writes a part with the hashes of patients and texts, which the finished table replaces by numbers."""
    size = _batch_size(first, last)
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
    output, files, tokens = subject.output, {}, {}
    _take_away(output)
    for split in splits:
        names = [_name(s, first) for s, first, _ in parts if s == split]
        attributes = subject.dataset.attributes(split)
        numbers = {k: _numbers([_column(work / name, k) for name in names]) for k in ("patient", "text")}
        files[split], tokens[split] = [], []
        for i, name in enumerate(names):
            found = store.read_part(work / name, "npz")
            found |= {k: of[i] for k, of in numbers.items()}
            found |= {f"attribute/{k}": x[found["row"]] for k, x in attributes.items()}
            path = output / f"{split}-{i:05d}{store.ENDINGS[_FORMAT.value]}"
            files[split].append(store.write_part(path, found, _FORMAT.value))
            if _FEATURES.value == "tokens":
                path = output / f"tokens-{split}-{i:05d}.npz"
                shutil.copyfile(work / f"tokens-{name}", path)
                tokens[split].append({"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)})
    table = store.from_columns(found, str(path))
    if "text" in subject.modalities and prompts:
        store.write_prompts(output, subject.encoder.embed_prompts(prompts))
    _index(subject, table, files, tokens, prompts).save(output)
    shutil.rmtree(work)
    total = sum(e["examples"] for of in files.values() for e in of)
    lost = sum(last - first for _, first, last in parts) - total
    left = f"; {lost} rows that cannot be read left out" if lost else ""
    print(f"{total} examples of {', '.join(splits)} embedded{left}: {output}")


def _take_away(output: Path) -> None:
    """The files of earlier tables, the index first: what is half gone is no longer taken for whole."""
    if (output / store.INDEX).is_file():
        earlier = store.read_index(output)
        (output / store.INDEX).unlink()
        entries = [e for of in (earlier.splits, earlier.tokens.get("splits", {})) for v in of.values() for e in v]
        for name in (*(e["file"] for e in entries), store.PROMPTS):
            (output / Path(name).name).unlink(missing_ok=True)


def _column(path: Path, name: str) -> np.ndarray:
    with np.load(path) as found:
        return found[name]


def _numbers(hashes: list[np.ndarray]) -> list[np.ndarray]:
    numbers = np.unique(np.concatenate(hashes), axis=0, return_inverse=True)[1].reshape(-1)
    return np.split(numbers, np.cumsum([len(h) for h in hashes])[:-1])


def _index(subject: EncoderSubject, table: EmbeddingTable, files, tokens, prompts) -> store.Index:
    about = {"subject": {"kind": subject.kind, "name": subject.name}, "checkpoint": dict(subject.checkpoint)}
    params, objectives = subject.encoder.params, to_dict(subject.encoder.config["method"]).get("objectives", {})
    learnt = params.get("objectives", {}) if subject.scorer() else {}
    kinds = {m: subject.encoder.transforms[m].kind for m in subject.modalities}
    of_tokens = token_store.describe(tokens, kinds, _DTYPE.value) if _FEATURES.value == "tokens" else {}
    rows = {k: len(subject.dataset.source(k)) for k in files}
    return store.Index(
        about=about | {"data": dict(subject.data)},
        kind=_FORMAT.value,
        modalities={m: x.shape[1] for m, x in table.embeddings.items()},
        labels=subject.labels,
        splits={k: tuple(v) for k, v in files.items()},
        findings=dict(prompts),
        attributes=dict(subject.attributes),
        objectives=objectives if learnt else {},
        left_out={k: rows[k] - sum(e["examples"] for e in v) for k, v in files.items()},
        tokens=of_tokens,
        log_scales={k: float(v["log_scale"]) for k, v in learnt.items()},
    )


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
