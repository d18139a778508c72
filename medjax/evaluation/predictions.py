"""Other programs' predictions: read from a table, scored against the labels beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medjax.data.readers.npz import open_arrays, read_array
from medjax.data.readers.table import binary, number, read_table
from medjax.errors import UserError, suggest
from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import average, patient_weights, summarise
from medjax.evaluation.calibration import ece
from medjax.evaluation.operating_points import MAX_F1, choose, rates

NO_VALIDATION = "no validation file to choose a threshold on"
NO_PROBABILITY = "the scores are not all between 0 and 1"


@dataclass(frozen=True)
class Predictions:
    """n examples, of whom each label has a score. scores: `{label: float64[n]}`. labels: `{label: float64[n]}`, 0 or 1,
    NaN unknown. patients: int[n]; each example its own where the file did not say, and then not patients_known.
    """

    scores: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    patients: np.ndarray
    patients_known: bool

    def shuffled(self) -> "Predictions":
        """The scores dealt out anew among the examples, as a control."""
        order = np.random.default_rng(0).permutation(len(self.patients))
        return replace(self, scores={k: x[order] for k, x in self.scores.items()})


def read_predictions(path: str | Path) -> Predictions:
    """Reads a table (.csv, .tsv, .jsonl, .parquet) or .npz with columns `score/NAME` and `label/NAME` (0, 1 or empty)
    and, if it has one, `patient`.

    Raises:
      UserError: names file, column and row (the first is 1) that cannot be used.
    """
    path = Path(path)
    columns = _npz(path) if path.suffix == ".npz" else _table(path)
    scores = {k.removeprefix("score/"): x for k, x in columns.items() if k.startswith("score/")}
    labels = {k.removeprefix("label/"): x for k, x in columns.items() if k.startswith("label/")}
    if not scores:
        raise UserError(f"{path} has no column score/NAME; found {', '.join(columns) or 'none'}")
    for name in set(scores) ^ set(labels):
        kind, other = ("label", labels) if name in scores else ("score", scores)
        raise UserError(f"{path} has no column {kind}/{name}; {suggest(name, other)}")
    n = len(next(iter(scores.values())))
    patients = columns.get("patient")
    return Predictions(
        {k: _cells(path, f"score/{k}", x, _score) for k, x in scores.items()},
        {k: _cells(path, f"label/{k}", labels[k], binary) for k in scores},
        np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1].reshape(-1),
        patients is not None,
    )


def score_predictions(
    given: Predictions, validation: Predictions | None, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """`{label: {metric: float64[1 + r]}}`, values and bootstrap replicates of the labels with both classes: auroc,
    auprc; ece of probabilities; f1 and balanced_accuracy at the threshold of the largest F1 on `validation`, if given.

    seed: of the bootstrap; data sets whose mean is taken need one each, to be drawn independently.
    """
    weights = patient_weights(given.patients, seed=seed)
    out = {}
    for name, scores in given.scores.items():
        known, truth = _known(given, name)
        if truth.all() or not truth.any():
            continue
        part, at = scores[known], weights[:, known]
        values = {"auroc": metrics.auroc(part, truth, at), "auprc": metrics.average_precision(part, truth, at)}
        if part.min() >= 0 and part.max() <= 1:
            values["ece"] = ece(part, truth, at)
        if validation is not None:
            found = rates(part >= threshold(validation, name), truth, at)
            values |= {k: found[k] for k in ("f1", "balanced_accuracy")}
        out[name] = values
    return out


def threshold(validation: Predictions, name: str) -> float:
    """The threshold of the largest F1 on the validation file.

    Raises:
      UserError: it lacks the label, or one of its classes.
    """
    if name not in validation.scores:
        raise UserError(f"the validation file has no column score/{name}; {suggest(name, validation.scores)}")
    known, truth = _known(validation, name)
    if truth.all() or not truth.any():
        raise UserError(f"label {name!r} of the validation file has one class only, so no threshold can be chosen")
    return choose(validation.scores[name][known], truth, 0.9)[MAX_F1]


def macro(scored: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """`{metric: float64[1 + r]}`: the mean over those that all have, replicate by replicate."""
    parts = list(scored.values())
    shared = [k for k in parts[0] if all(k in p for p in parts)] if parts else []
    return {k: average([p[k] for p in parts]) for k in shared}


def intervals(values: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """For results.json."""
    return {k: summarise(v).as_dict() for k, v in values.items()}


def skipped(given: Predictions) -> dict[str, str]:
    """Labels that are not scored, and why."""
    found = {k: _known(given, k)[1] for k in given.scores}
    return {
        k: f"no {'negative' if v.any() else 'positive'} example" for k, v in found.items() if v.all() or not v.any()
    }


def _known(given: Predictions, name: str) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(given.labels[name])
    return known, given.labels[name][known] == 1


def _table(path: Path) -> dict[str, list[str]]:
    rows = read_table(path)
    return {k: [row[k] for row in rows] for k in rows[0]}


def _npz(path: Path) -> dict[str, list[str]]:
    """As cells, so that one check is for all formats."""
    arrays = open_arrays(path)
    wrong = [k for k, a in arrays.items() if len(a.shape) != 1]
    if wrong or len({a.shape for a in arrays.values()}) > 1:
        shapes = ", ".join(f"{k} {list(a.shape)}" for k, a in arrays.items())
        raise UserError(f"the arrays of {path} must be [n], all of one length, got {shapes}")
    return {k: [str(x) for x in read_array(a)] for k, a in arrays.items()}


def _cells(path: Path, column: str, cells: list[str], read: Callable[[str, str], float]) -> np.ndarray:
    out = []
    for row, cell in enumerate(cells, 1):
        try:
            out.append(read(cell, column))
        except UserError as error:
            raise UserError(f"{path} row {row}: {error}") from None
    return np.array(out)


def _score(cell: str, column: str) -> float:
    value = number(cell, column)
    if not np.isfinite(value):
        raise UserError(f"column {column!r} holds {cell!r}; every example needs a finite score")
    return value
