"""The task "predictions" of `medjax.bin.score`: AUROC and AUPRC, the calibration error where scores are probabilities,
and F1 and balanced accuracy at a threshold that was chosen on a validation table."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import medjax
from medjax.bin import cli
from medjax.errors import UserError
from medjax.evaluation import plots, predictions
from medjax.evaluation.bootstrap import REPLICATES, Interval
from medjax.evaluation.page import Page
from medjax.evaluation.predictions import Predictions
from medjax.evaluation.schema import check_results

_METRICS = ("auroc", "auprc", "ece", "f1", "balanced_accuracy")


def score_predictions(inputs: Mapping[str, str], validation_table: str, output: Path) -> None:
    """Scores tables, `{name: path}`, prints a table, writes results.json and report.html.

    Raises:
      UserError: a table cannot be used, or none of its labels has both classes.
    """
    given = {n: predictions.read_predictions(x) for n, x in inputs.items()}
    validation = predictions.read_predictions(validation_table) if validation_table else None
    scored = {n: predictions.score_predictions(p, validation, i) for i, (n, p) in enumerate(given.items())}
    empty = [n for n, of in scored.items() if not of]
    if empty:
        raise UserError(f"no label of {empty[0]} has both classes, so there is nothing to score")
    macros = {n: predictions.macro(of) for n, of in scored.items()}
    shuffled = {n: predictions.macro(predictions.score_predictions(p.shuffled(), None)) for n, p in given.items()}
    results = {
        **_head(given),
        "left_out": _left_out(given, validation),
        "predictions": {
            n: {
                "macro": predictions.intervals(macros[n]),
                "labels": {k: predictions.intervals(v) for k, v in of.items()},
                "skipped": predictions.skipped(given[n]),
            }
            for n, of in scored.items()
        },
        "mean_of_data_sets": predictions.intervals(predictions.macro(macros)),
        "controls": {
            "chance": {n: {"auroc": 0.5, "auprc": _prevalence(p, scored[n])} for n, p in given.items()},
            "shuffled": {n: predictions.intervals(v) for n, v in shuffled.items()},
        },
    }
    check_results(results)
    _publish(results, output)


def _head(given: dict[str, Predictions]) -> dict:
    """As of every results.json; of somebody else's table little is known."""
    known = all(p.patients_known for p in given.values())
    digest = hashlib.sha256()
    for p in given.values():
        for part in (p.patients.astype(np.int64), *(p.labels[k] for k in sorted(p.labels))):
            digest.update(np.ascontiguousarray(part).tobytes())
    return {
        "medjax": medjax.__version__,
        "subject": {"kind": "predictions", "name": ", ".join(given)},
        "checkpoint": None,
        "data": {
            **{"name": ", ".join(given), "synthetic": False, "licence": "unknown", "terms": [], "notes": []},
            **{"manifest_sha256": None, "patients_known": known, "sensitive": True, "texts_from_labels": False},
            **{"split": "as given", "examples": sum(len(p.patients) for p in given.values())},
            "patients": sum(len(np.unique(p.patients)) for p in given.values()),
            **{"example_list_sha256": digest.hexdigest(), "times_opened": None},
        },
        "intervals": f"95 %, bootstrap over {'patients' if known else 'examples where a file has no column patient'}, "
        f"{REPLICATES} replicates",
    }


def _left_out(given: dict[str, Predictions], validation: Predictions | None) -> dict[str, str]:
    """Metrics that were not computed, and why."""
    out = {} if validation else {"f1, balanced_accuracy": predictions.NO_VALIDATION}
    if any(x.min() < 0 or x.max() > 1 for p in given.values() for x in p.scores.values()):
        out["ece"] = predictions.NO_PROBABILITY
    return out


def _prevalence(given: Predictions, scored: dict) -> float:
    """What AUPRC is by chance."""
    return round(float(np.mean([np.nanmean(given.labels[k]) for k in scored])), 6)


def _publish(results: dict, output: Path) -> None:
    names = list(results["predictions"])
    shown = [m for m in _METRICS if any(m in of["macro"] for of in results["predictions"].values())]
    controls = results["controls"]
    header = ("data set", *(f"macro {m}" for m in shown), "chance AUROC", "chance AUPRC", "shuffled AUROC")
    rows = [
        (
            n,
            *(_cell(results["predictions"][n]["macro"], m) for m in shown),
            *("0.500", f"{controls['chance'][n]['auprc']:.3f}", _cell(controls["shuffled"][n], "auroc")),
        )
        for n in names
    ]
    rows.append(("mean", *(_cell(results["mean_of_data_sets"], m) for m in shown), "0.500", "", ""))
    cli.print_table(header, rows)
    data = results["data"]
    who = f"{data['examples']} examples of {data['patients']} patients; intervals: {results['intervals']}"
    page = Page("Scores of predictions", who)
    for metric, why in results["left_out"].items():
        print(f"left out: {metric}: {why}")
        page.note(f"Left out: {metric}: {why}.")
    page.table(header, rows)
    for n, of in results["predictions"].items():
        page.heading(n)
        page.figure(
            plots.intervals([(k, Interval.of(v["auroc"])) for k, v in of["labels"].items()], 0.5, "AUROC"),
            f"AUROC of each label of {n}, 95 % intervals",
        )
        for name, why in of["skipped"].items():
            page.note(f"{name} is not scored: {why}.")
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    page.save(output / "report.html")
    print(f"results: {output / 'results.json'}\nreport: {output / 'report.html'}")


def _cell(values: dict, metric: str) -> object:
    return Interval.of(values[metric]) if metric in values else "-"
