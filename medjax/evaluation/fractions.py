"""Parts of the training split, drawn by patient and stratified by label, and the lists that say which."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.records import write_file
from medjax.errors import UserError
from medjax.evaluation.bootstrap import Interval, average, summarise
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import Features, fit_probe
from medjax.evaluation.recipes import Recipe

FORMAT = "medjax-fraction-1"


@dataclass(frozen=True)
class Part:
    """A part of the training split. fraction: of the patients, as asked for. rows: int[k], positions in the table,
    ascending."""

    fraction: float
    seed: int
    rows: np.ndarray


@dataclass(frozen=True)
class FractionResult:
    """Of one fraction over its seeds. examples, patients: the mean number. macro: the mean over seeds of the mean AUROC
    of the labels that every seed can score, with its interval over test patients; sd: over seeds, None of one.
    skipped: the other labels, and in how many seeds they lack a class."""

    examples: float
    patients: float
    seeds: int
    macro: Interval | None
    sd: float | None
    by_seed: list[float]
    labels: dict[str, Interval]
    skipped: dict[str, str]
    replicates: np.ndarray | None

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        kept = {k: getattr(self, k) for k in ("examples", "patients", "seeds", "by_seed", "sd", "skipped")}
        macro = self.macro.as_dict() if self.macro else None
        return {**kept, "macro_auroc": macro, "labels": {k: v.as_dict() for k, v in self.labels.items()}}


def draw(labels: np.ndarray, patients: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """int[k]: the rows of round(fraction * patients) patients, at least two, by iterative stratification (Sechidis
    et al., ECML 2011): the rarest label is dealt out first, each label to the part that lacks most of it. A patient has
    a label if any example has; the drawn part is to have one patient of each label at least, as far as it reaches.

    labels: float32[n, K], NaN unknown. patients: int[n].
    """
    if fraction >= 1:
        return np.arange(len(patients))
    names, number = np.unique(patients, return_inverse=True)
    has = np.zeros((len(names), labels.shape[1]), bool)
    np.logical_or.at(has, number.reshape(-1), labels == 1)
    size = min(max(2, round(fraction * len(names))), len(names))
    rng = np.random.default_rng([seed, round(fraction * 1e6)])
    wanted = np.maximum(fraction * has.sum(0), np.minimum(1, has.sum(0)))
    chosen, left = np.zeros(len(names), bool), np.ones(len(names), bool)
    while (has & left[:, None]).any() and chosen.sum() < size:
        remaining = (has & left[:, None]).sum(0)
        k = np.where(remaining > 0, remaining, np.inf).argmin()
        for p in rng.permutation(np.flatnonzero(has[:, k] & left)):
            left[p] = False
            if wanted[k] > 0 and wanted[k] >= rng.random() and chosen.sum() < size:
                chosen[p] = True
                wanted -= has[p]
    rest = rng.permutation(np.flatnonzero(~has.any(1)))
    rest = np.concatenate([rest, rng.permutation(np.flatnonzero(has.any(1) & ~chosen))])
    chosen[rest[: size - int(chosen.sum())]] = True
    return np.flatnonzero(chosen[number.reshape(-1)])


def parts(table: EmbeddingTable, fractions: Sequence[float], seeds: int) -> list[Part]:
    """Those of every fraction and seed; the whole split once."""
    return [
        Part(f, s, draw(table.labels, table.patients, f, s))
        for f in sorted(fractions)
        for s in range(1 if f >= 1 else seeds)
    ]


def write_lists(directory: Path, table: EmbeddingTable, drawn: Sequence[Part], data: Mapping[str, Any]) -> list[str]:
    """Writes a JSON file of each part: rows of the training split and hashes of the examples' ids, 16 hexadecimal
    digits each. data: `name` and `manifest_sha256` of the data set. Returns the names of the files."""
    names = []
    for part in drawn:
        listed = {
            "format": FORMAT,
            "data": data["name"],
            "manifest_sha256": data["manifest_sha256"],
            "split": "train",
            "fraction": part.fraction,
            "seed": part.seed,
            "rows": table.rows[part.rows].tolist(),
            "examples": _hex(table.ids[part.rows]),
        }
        names.append(f"fraction-{part.fraction:g}-seed-{part.seed}.json")
        directory.mkdir(parents=True, exist_ok=True)
        write_file(directory / names[-1], (json.dumps(listed) + "\n").encode())
    return names


def read_lists(directory: Path, table: EmbeddingTable, data: Mapping[str, Any]) -> list[Part]:
    """The parts that the files of a folder name: by hashes of ids where the table has any, else by rows.

    Raises:
      UserError: there is no list, one is of another format or, without hashes, of another data set, or it names
        examples that the table lacks.
    """
    paths = sorted(directory.glob("*.json"))
    if not paths:
        raise UserError(f"no lists of examples in {directory}; --fractions writes them to fraction_lists")
    return sorted((_read(p, table, data) for p in paths), key=lambda part: (part.fraction, part.seed))


def _read(path: Path, table: EmbeddingTable, data: Mapping[str, Any]) -> Part:
    try:
        listed = json.loads(path.read_text())
        form, fraction, seed = listed["format"], float(listed["fraction"]), int(listed["seed"])
        rows, examples, digest = listed["rows"], listed["examples"], listed["manifest_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a list of examples ({error!r}); --fractions writes such") from None
    if form != FORMAT:
        raise UserError(f"{path} has format {form!r}, this version reads {FORMAT!r}")
    hashed = bool(table.ids.any()) and any(int(e, 16) for e in examples)
    if not hashed and digest != data["manifest_sha256"]:
        raise UserError(
            f"{path} is of another data set ({listed['data']!r}), and without ids its rows say nothing here"
        )
    here = {key: i for i, key in enumerate(_hex(table.ids) if hashed else table.rows.tolist())}
    wanted = examples if hashed else rows
    lacking = sum(key not in here for key in wanted)
    if lacking or not wanted:
        raise UserError(
            f"{path}: {lacking} of its {len(wanted)} examples are not in the training split of {data['name']!r}; "
            "lists hold for the data set that they were drawn from"
        )
    return Part(fraction, seed, np.sort([here[key] for key in wanted]))


def _hex(ids: np.ndarray) -> list[str]:
    return [f"{a:08x}{b:08x}" for a, b in ids.tolist()]


def fraction_probe(
    splits: Mapping[str, Features], label_names: Sequence[str], recipe: Recipe, drawn: Sequence[Part]
) -> FractionResult:
    """Probes fitted on each of these parts, which are of one fraction; chosen and scored on whole splits."""
    train = splits["train"]
    results = [fit_probe({**splits, "train": train.where(p.rows)}, label_names, recipe) for p in drawn]
    scored = [k for k in label_names if all(k in r.auroc for r in results)]
    skipped = {}
    for k in (k for k in label_names if k not in scored):
        why = [r.skipped[k] for r in results if k in r.skipped]
        skipped[k] = f"in {len(why)} of {len(results)} draws {why[0]}"
    sizes = [(len(p.rows), len(np.unique(train.patients[p.rows]))) for p in drawn]
    out = FractionResult(*np.mean(sizes, axis=0).tolist(), len(drawn), None, None, [], {}, skipped, None)
    if not scored:
        return out
    macros = [average([r.replicates[k] for k in scored]) for r in results]
    values = [float(m[0]) for m in macros]
    mean = np.mean(macros, axis=0)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    labels = {k: summarise(np.mean([r.replicates[k] for r in results], axis=0)) for k in scored}
    return replace(out, macro=summarise(mean), sd=sd, by_seed=values, labels=labels, replicates=mean)
