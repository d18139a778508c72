"""Tables of embeddings on disk, in columns that other programs read.

A folder holds index.json and, of every split, files of one format with the columns `embedding/{modality}`
float32[n, E], `present/{modality}` bool[n], `example` uint32[n, 2] (hashes of the examples' ids), `patient` and `text`
int64[n] (equal for equal patients and reports, and nothing more), `row` int64[n], `label/{name}` and `attribute/{name}`
float32[n] (NaN unknown). In NPZ a column is an array, in Parquet a column, in ArrayRecord an example is a safetensors
record of its values. A single NPZ file with no more than `embedding/{modality}` is a table, too: that of somebody
else's encoder; so are train.npz, validation.npz and test.npz in a folder without index.json.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from medjax.config import build
from medjax.data.manifest import SPLITS, Finding
from medjax.data.records import RecordFile, sha256, write_file
from medjax.errors import UserError, check_choice, suggest
from medjax.evaluation.embeddings import EmbeddingTable

INDEX = "index.json"
PROMPTS = "prompts.npz"
FORMAT = "medjax-embeddings-1"
ENDINGS = {"npz": ".npz", "parquet": ".parquet", "array_record": ".array_record"}
_GROUPS = ("embedding", "present", "label", "attribute")


@dataclass(frozen=True)
class Index:
    """What index.json says. about: encoder and data, as in every results.json. splits: `{split: [file entries]}`.
    attributes: see the manifest. objectives, log_scales: what the encoder was trained to compare by, for joint scores.
    left_out: `{split: rows that could not be read}`. tokens: what `medjax.evaluation.token_store` says of its files.
    """

    about: dict[str, Any]
    kind: str
    modalities: dict[str, int]
    labels: tuple[str, ...]
    splits: dict[str, tuple[dict, ...]]
    findings: dict[str, Finding] = field(default_factory=dict)
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    objectives: dict[str, Any] = field(default_factory=dict)
    log_scales: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    def save(self, directory: Path) -> None:
        """Writes index.json, all of it or nothing."""
        write_file(directory / INDEX, (json.dumps(asdict(self), indent=1) + "\n").encode())


def read_index(directory: str | Path) -> Index:
    """Raises:
    UserError: there is none, or it has another format.
    """
    path = Path(directory) / INDEX
    if not path.is_file():
        raise UserError(f"no embeddings at {directory}: {INDEX} is missing; write them with medjax.bin.embed")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); embed again") from None
    if raw.get("format") != FORMAT:
        raise UserError(f"{path} has format {raw.get('format')!r}, this version reads {FORMAT!r}; embed again")
    return build(Index, raw, str(path))


def read(directory: str | Path, split: str) -> EmbeddingTable:
    """A split of a folder.

    Raises:
      UserError: there is no such split, or a file is missing or differs from its checksum.
    """
    index = read_index(directory)
    check_choice("split", split, index.splits)
    parts = []
    for entry in index.splits[split]:
        path = Path(directory) / entry["file"]
        if not path.is_file() or sha256(path) != entry["sha256"]:
            raise UserError(f"{path} is missing or differs from its checksum; embed again")
        parts.append(read_part(path, index.kind))
    joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return from_columns(joined, str(directory))


def read_npz(path: str | Path) -> EmbeddingTable:
    """The table of a single NPZ file.

    Raises:
      UserError: it cannot be read, or its columns do not fit.
    """
    return from_columns(read_part(Path(path), "npz"), str(path))


def is_plain(place: Path) -> bool:
    """Whether these are tables without an index: an NPZ file, or a folder with such of splits."""
    folder = not (place / INDEX).is_file() and any((place / f"{k}.npz").is_file() for k in SPLITS)
    return place.suffix == ".npz" or folder


def read_plain(place: Path, split: str, like: EmbeddingTable | None = None) -> EmbeddingTable:
    """A split of tables without an index; a single file is the split that is read first. like: that of another split,
    whose labels give the order.

    Raises:
      UserError: there is no such split, it cannot be read, or has other columns or widths than the other.
    """
    single, path = place.suffix == ".npz", _plain(place, split)
    if (single and like is not None) or not (single or path.is_file()):
        raise UserError(f"{place} has no {split} split; give a folder with {split}.npz beside those of other splits")
    table = read_npz(path)
    if like is None:
        return table
    kinds = [
        ({m: x.shape[1] for m, x in t.embeddings.items()}, {*t.label_names}, {*t.attributes}) for t in (table, like)
    ]
    if kinds[0] != kinds[1]:
        raise UserError(f"{path} has other embeddings, labels or attributes than the other splits; write all alike")
    order = [table.label_names.index(name) for name in like.label_names]
    return replace(table, labels=table.labels[:, order], label_names=like.label_names)


def names_patients(place: Path, split: str) -> bool:
    """Whether a table without an index says which rows are of one patient. Expects a table that `read_plain` reads."""
    with np.load(_plain(place, split)) as found:
        return "patient" in found.files


def _plain(place: Path, split: str) -> Path:
    return place if place.suffix == ".npz" else place / f"{split}.npz"


def columns(table: EmbeddingTable) -> dict[str, np.ndarray]:
    """The columns of a table, by name."""
    out = {f"embedding/{m}": x.astype(np.float32) for m, x in table.embeddings.items()}
    out |= {f"present/{m}": x for m, x in table.present.items()}
    out |= {"example": table.ids, "patient": table.patients.astype(np.int64), "text": table.texts.astype(np.int64)}
    out["row"] = table.rows.astype(np.int64)
    labels = table.labels.astype(np.float32)
    out |= {f"label/{name}": labels[:, k] for k, name in enumerate(table.label_names)}
    return out | {f"attribute/{k}": x.astype(np.float32) for k, x in table.attributes.items()}


def from_columns(found: Mapping[str, np.ndarray], where: str) -> EmbeddingTable:
    """The inverse; only an embedding is required: without the others all are present, and each example is a patient
    and a text of its own.

    Raises:
      UserError: names the column of `where` that does not fit.
    """
    groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in _GROUPS}
    single = {}
    for key, values in found.items():
        group, slash, name = key.partition("/")
        if slash and group in groups:
            groups[group][name] = values
        elif key in ("example", "patient", "text", "row"):
            single[key] = values
        else:
            known = ("example", "patient", "text", "row", *(f"{g}/NAME" for g in _GROUPS))
            raise UserError(f"{where} has an unknown column {key!r}; {suggest(key, known)}")
    if not groups["embedding"]:
        raise UserError(f"{where} has no column embedding/MODALITY (float32[n, E])")
    n = len(next(iter(groups["embedding"].values())))
    for key, values in found.items():
        square = key.startswith("embedding/")
        if len(values) != n or values.ndim != (2 if square or key == "example" else 1):
            raise UserError(f"{key} of {where} has shape {values.shape}; expected ({n}{', E' if square else ''})")
        if square and not np.isfinite(values).all():
            raise UserError(f"{key} of {where} holds values that are not finite")
    present = {m: groups["present"].get(m, np.ones(n, bool)).astype(bool) for m in groups["embedding"]}
    labels = [v.astype(np.float32) for v in groups["label"].values()]
    return EmbeddingTable(
        {m: x.astype(np.float32) for m, x in groups["embedding"].items()},
        present,
        _numbered(single.get("patient"), n),
        _numbered(single.get("text"), n),
        np.stack(labels, axis=1) if labels else np.zeros((n, 0), np.float32),
        tuple(groups["label"]),
        single.get("row", np.arange(n)),
        single.get("example", np.zeros((n, 2), np.uint32)).astype(np.uint32),
        {k: x.astype(np.float32) for k, x in groups["attribute"].items()},
    )


def _numbered(values: np.ndarray | None, n: int) -> np.ndarray:
    return np.arange(n) if values is None else np.unique(values, return_inverse=True)[1].reshape(-1)


def write_part(path: Path, table: Mapping[str, np.ndarray], kind: str) -> dict[str, Any]:
    """Writes columns to one file, all of it or nothing; returns its entry: file, examples, bytes, sha256."""
    examples = len(next(iter(table.values()), ()))
    if kind == "array_record":
        with RecordFile(path) as out:
            for i in range(examples):
                out.write(safetensors.numpy.save({k: np.array(v[i], order="C") for k, v in table.items()}))
            out.finish()
    else:
        {"npz": _write_npz, "parquet": _write_parquet}[kind](path, table)
    return {"file": path.name, "examples": examples, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _write_npz(path: Path, table: Mapping[str, np.ndarray]) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as out:
        np.savez(out, **table)
    unfinished.replace(path)


def _write_parquet(path: Path, table: Mapping[str, np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(x: np.ndarray):
        return pa.array(x) if x.ndim == 1 else pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])

    unfinished = path.with_name(f".{path.name}.unfinished")
    pq.write_table(pa.table({k: column(np.ascontiguousarray(x)) for k, x in table.items()}), unfinished)
    unfinished.replace(path)


def read_part(path: Path, kind: str) -> dict[str, np.ndarray]:
    """The columns of one file.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return {"npz": _read_npz, "parquet": _read_parquet, "array_record": _read_records}[kind](path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as {kind}: {error}") from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def array(column) -> np.ndarray:
        whole = column.combine_chunks()
        if not pa.types.is_fixed_size_list(whole.type):
            return whole.to_numpy(zero_copy_only=False)
        return whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), whole.type.list_size)

    table = pq.read_table(path)
    return {k: array(table.column(k)) for k in table.column_names}


def _read_records(path: Path) -> dict[str, np.ndarray]:
    import grain

    source = grain.sources.ArrayRecordDataSource([str(path)])
    rows = [safetensors.numpy.load(source[i]) for i in range(len(source))]
    return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def write_prompts(directory: Path, prompts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Keeps embedded prompts, `{finding: (positive float32[p, E], negative float32[q, E])}`, beside the tables."""
    _write_npz(
        directory / PROMPTS,
        {
            f"{side}/{k}": x
            for k, pair in prompts.items()
            for side, x in zip(("positive", "negative"), pair, strict=True)
        },
    )


def read_prompts(directory: str | Path, names: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The embedded prompts of these findings.

    Raises:
      UserError: the folder has none for one of them.
    """
    path = Path(directory) / PROMPTS
    found = read_part(path, "npz") if path.is_file() else {}
    lacking = [k for k in names if f"positive/{k}" not in found or f"negative/{k}" not in found]
    if lacking:
        raise UserError(f"{directory} holds no embedded prompts for {', '.join(lacking)}; embed with --prompts")
    return {k: (found[f"positive/{k}"], found[f"negative/{k}"]) for k in names}
