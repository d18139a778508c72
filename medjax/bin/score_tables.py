"""Tasks of `medjax.bin.score` whose inputs are tables: grades, classes that exclude each other, and reports."""

from collections.abc import Sequence

import numpy as np

from medjax.bin.score_folders import recalls
from medjax.bin.score_result import Scored, mean
from medjax.data.readers.table import Row, binary, check_columns, number, read_table
from medjax.errors import UserError
from medjax.evaluation import metrics, multiclass
from medjax.evaluation.bootstrap import patient_weights
from medjax.evaluation.scoring import grades
from medjax.methods.encoder import Encoder


def ordinal(table: str, seed: int) -> Scored:
    """Ordered grades: columns `grade/NAME`, what was called, and `label/NAME`, whole numbers both; empty labels do
    not count. Controls: the most frequent grade for all, and grades dealt out anew."""
    rows = read_table(table)
    names = [c.removeprefix("grade/") for c in rows[0] if c.startswith("grade/")]
    if not names:
        raise UserError(f"{table} has no column grade/NAME; found {', '.join(rows[0])}")
    check_columns(rows, [f"label/{n}" for n in names], table)
    patients, known = _patients(rows)
    weights = patient_weights(patients, seed=seed)
    values, torn, constant, notes = {}, {}, {}, []
    for name in names:
        truth, found = (_grades(table, rows, f"{kind}/{name}") for kind in ("label", "grade"))
        there = np.isfinite(truth)
        if np.isnan(found[there]).any():
            raise UserError(f"{table} has a label/{name} without grade/{name}; grade every example that has a label")
        truth, found, w = truth[there], found[there], weights[:, there]
        if len(np.unique(truth)) < 2:
            notes.append(f"{table}: {name} is not scored: its labels are all the same")
            continue
        values[name] = _ordinal(found, truth, w)
        torn[name] = _ordinal(_dealt(found), truth, w)
        often = np.unique(truth, return_counts=True)
        constant[name] = _ordinal(np.full_like(truth, often[0][often[1].argmax()]), truth, w)
    if not values:
        raise UserError(f"no label of {table} has two grades, so there is nothing to score")
    if len(values) > 1:
        values["mean"], torn["mean"], constant["mean"] = mean(values), mean(torn), mean(constant)
    return Scored(
        values, {"most frequent": constant, "shuffled": torn}, patients, known, _content(rows, "label/"), notes
    )


def classes(table: str, seed: int) -> Scored:
    """Classes that exclude each other: columns `score/CLASS` and `label`, the name of the true one; empty labels do
    not count. AUROC of each class against the others. Controls: the most frequent class, and scores dealt out anew."""
    rows = read_table(table)
    check_columns(rows, ("label",), table)
    names = [c.removeprefix("score/") for c in rows[0] if c.startswith("score/")]
    if len(names) < 2:
        raise UserError(f"{table} needs a column score/CLASS for each of two or more classes; it has {len(names)}")
    unknown = sorted({row["label"] for row in rows} - {*names, ""})
    if unknown:
        raise UserError(f"{table} has the label {unknown[0]!r} and no column score/{unknown[0]}")
    patients, known = _patients(rows)
    kept = [i for i, row in enumerate(rows) if row["label"]]
    if not kept:
        raise UserError(f"column 'label' of {table} is empty, so there is nothing to score")
    weights = patient_weights(patients, seed=seed)[:, kept]
    truth = np.array([names.index(rows[i]["label"]) for i in kept])
    scores = np.array([[number(rows[i][f"score/{n}"], f"score/{n}") for n in names] for i in kept])
    if not np.isfinite(scores).all():
        raise UserError(f"{table} row {kept[int(np.argmin(np.isfinite(scores).all(axis=1)))] + 1} has no finite score")
    often = np.zeros_like(scores)
    often[:, np.bincount(truth).argmax()] = 1
    notes = [
        f"{table}: class {n} is not scored: no example has it" for k, n in enumerate(names) if not (truth == k).any()
    ]
    controls = {"most frequent": _classes(often, truth, names, weights)}
    controls["shuffled"] = _classes(_dealt(scores), truth, names, weights)
    return Scored(_classes(scores, truth, names, weights), controls, patients, known, _content(rows, "label"), notes)


def reports(table: str, encoder: Encoder | None, seed: int) -> Scored:
    """Generated reports beside the real ones, through the text tower: columns `generated` and `reference`; with
    `label/NAME` of the encoder's findings also how well the generated text tells them. Control: reports dealt out
    anew; and for findings the real report, which is a mark to reach."""
    if encoder is None:
        raise UserError(
            "reports are compared by their embeddings; pass --workdir or --export, an encoder that reads text"
        )
    if "text" not in encoder.modalities:
        raise UserError("this encoder reads no text")
    rows = read_table(table)
    check_columns(rows, ("generated", "reference"), table)
    empty = [i for i, row in enumerate(rows, 1) if not row["reference"].strip()]
    if empty or len(rows) < 2:
        raise UserError(f"{table} row {empty[0]} has no reference" if empty else f"{table} needs two rows or more")
    patients, known = _patients(rows)
    weights = patient_weights(patients, seed=seed)
    made, real = (encoder.embed({"text": [row[k] for row in rows]})["text"] for k in ("generated", "reference"))
    own = np.unique([row["reference"] for row in rows], return_inverse=True)[1].reshape(-1)
    order = np.random.default_rng(0).permutation(len(rows))
    values = {"reports": recalls(made, real, weights, own)}
    torn = {"reports": recalls(made[order], real, weights, own)}
    marks, notes = {}, []
    for name, finding in encoder.manifest.findings.items():
        if f"label/{name}" not in rows[0]:
            continue
        truth = np.array([binary(row[f"label/{name}"], f"label/{name}") for row in rows])
        there = np.isfinite(truth)
        if len(np.unique(truth[there])) < 2:
            notes.append(f"{table}: {name} is not scored: its labels have one class")
            continue
        positive, negative = encoder.embed_prompts({name: finding})[name]
        asked = positive.mean(0) - negative.mean(0)
        for where, x in ((values, made), (torn, made[order]), (marks, real)):
            where[name] = {"auroc": metrics.auroc((x @ asked)[there], truth[there] == 1, weights[:, there])}
    controls = {"shuffled": torn} | ({"real_report": marks} if marks else {})
    return Scored(values, controls, patients, known, _content(rows, "reference"), notes)


def _ordinal(found: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    levels = np.arange(min(found.min(), truth.min()), max(found.max(), truth.max()) + 1)
    f, t = ((x - levels[0]).astype(int) for x in (found, truth))
    table = multiclass.confusion(f, t, len(levels), weights)
    return {
        "quadratic_kappa": grades.quadratic_kappa(table),
        "accuracy": multiclass.accuracy(table),
        "within_one": grades.within_one(table),
        "mean_absolute_error": grades.mean_absolute_error(table, levels),
        **grades.rank_correlations(found, truth, weights),
    }


def _classes(scores: np.ndarray, truth: np.ndarray, names: Sequence[str], weights: np.ndarray) -> dict:
    table = multiclass.confusion(scores.argmax(axis=1), truth, len(names), weights)
    there = [k for k in range(len(names)) if 0 < (truth == k).sum() < len(truth)]
    each = {names[k]: {"auroc": metrics.auroc(scores[:, k], truth == k, weights)} for k in there}
    together = {k: of(table) for k, of in multiclass.SCORES.items()} | mean(each)
    return {"all classes": together, **each}


def _grades(table: str, rows: Sequence[Row], column: str) -> np.ndarray:
    out = np.array([number(row[column], column) for row in rows])
    wrong = np.flatnonzero(np.isfinite(out) & (np.mod(out, 1) != 0) | np.isinf(out))
    if len(wrong):
        raise UserError(
            f"{table} row {wrong[0] + 1}: column {column!r} holds {out[wrong[0]]:g}; grades are whole numbers"
        )
    return out


def _dealt(x: np.ndarray) -> np.ndarray:
    return x[np.random.default_rng(0).permutation(len(x))]


def _patients(rows: Sequence[Row]) -> tuple[np.ndarray, bool]:
    if "patient" not in rows[0]:
        return np.arange(len(rows)), False
    return np.unique([row["patient"] for row in rows], return_inverse=True)[1].reshape(-1), True


def _content(rows: Sequence[Row], columns: str) -> bytes:
    return repr([[v for k, v in row.items() if k.startswith(columns)] for row in rows]).encode()
