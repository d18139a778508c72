"""What the tasks of `medjax.bin.score` give back, and how it becomes a table, results.json and a page."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import medjax
from medjax.bin import cli
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import REPLICATES, Interval, average, summarise
from medjax.evaluation.page import Page
from medjax.evaluation.schema import check_results

Values = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Scored:
    """One input. values: `{what: {metric: float64[1 + r]}}`, a value and its replicates each. controls: by name the
    same of what a score must beat. patients: int[n]. content: bytes by which results on the same examples are known.
    notes: what a reader must know, such as classes that are not scored. facts: further numbers for results.json.
    """

    values: Values
    controls: Mapping[str, Values]
    patients: np.ndarray
    patients_known: bool
    content: bytes
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def intervals(values: Values) -> dict[str, dict[str, dict]]:
    """For results.json."""
    return {what: {k: summarise(v).as_dict() for k, v in of.items()} for what, of in values.items()}


def mean(values: Values) -> dict[str, np.ndarray]:
    """`{metric: float64[1 + r]}` over everything that has the metric."""
    names = dict.fromkeys(k for of in values.values() for k in of)
    return {k: average([of[k] for of in values.values() if k in of]) for k in names}


def head(found: Mapping[str, Scored], subject: str) -> dict[str, Any]:
    """As of every results.json; of somebody else's files little is known."""
    known = all(s.patients_known for s in found.values())
    digest = hashlib.sha256(b"".join(s.content for s in found.values())).hexdigest()
    return {
        "medjax": medjax.__version__,
        "subject": {"kind": subject, "name": ", ".join(found)},
        "checkpoint": None,
        "data": {
            **{"name": ", ".join(found), "synthetic": False, "licence": "unknown", "terms": [], "notes": []},
            **{"manifest_sha256": None, "patients_known": known, "sensitive": True, "texts_from_labels": False},
            **{"split": "as given", "examples": sum(len(s.patients) for s in found.values())},
            "patients": sum(len(np.unique(s.patients)) for s in found.values()),
            **{"example_list_sha256": digest, "times_opened": None},
        },
        "intervals": f"95 %, bootstrap over {'patients' if known else 'examples where patients are not known'}, "
        f"{REPLICATES} replicates",
    }


def publish(task: str, found: Mapping[str, Scored], output: Path, left_out: Mapping[str, str]) -> None:
    """Prints the table, writes results.json and report.html."""
    names = dict.fromkeys(c for s in found.values() for c in s.controls)
    together = mean({n: mean(s.values) for n, s in found.items()})
    results = {
        **head(found, task),
        "left_out": dict(left_out),
        task: {n: {**intervals(s.values), **s.facts} for n, s in found.items()},
        **({"mean_of_data_sets": intervals({"mean": together})["mean"]} if len(found) > 1 else {}),
        "controls": {c: {n: intervals(s.controls[c]) for n, s in found.items() if c in s.controls} for c in names},
    }
    check_results(results)
    metrics = list(dict.fromkeys(k for s in found.values() for of in s.values.values() for k in of))
    header, rows = ("data set", "what", *metrics), _rows(found, metrics)
    if len(found) > 1:
        rows.append(("mean", "", *_cells(together, metrics)))
    cli.print_table(header, rows)
    data = results["data"]
    who = f"{data['examples']} examples of {data['patients']} patients; intervals: {results['intervals']}"
    page = Page(f"Scores: {task}", who)
    for note in [
        *(f"left out: {k}: {why}" for k, why in left_out.items()),
        *(x for s in found.values() for x in s.notes),
    ]:
        print(note)
        page.note(note)
    page.table(header, rows)
    for metric in metrics:
        page.heading(metric.replace("_", " "))
        points = [
            (f"{n}: {what}" if len(found) > 1 else what, summarise(of[metric]))
            for n, s in found.items()
            for what, of in s.values.items()
            if metric in of
        ]
        page.figure(plots.intervals(points, None, metric.replace("_", " ")), f"{metric}, 95 % intervals")
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    page.save(output / "report.html")
    print(f"results: {output / 'results.json'}\nreport: {output / 'report.html'}")


def _rows(found: Mapping[str, Scored], metrics: Sequence[str]) -> list[tuple]:
    """Each score, and under it the controls that have the same."""
    rows: list[tuple] = []
    for name, s in found.items():
        for what, of in s.values.items():
            rows.append((name, what, *_cells(of, metrics)))
            rows += [
                (name, f"{what}, {control}", *_cells(of_control[what], metrics))
                for control, of_control in s.controls.items()
                if what in of_control
            ]
    return rows


def _cells(of: Mapping[str, np.ndarray], metrics: Sequence[str]) -> list[object]:
    return [_cell(summarise(of[m])) if m in of else "-" for m in metrics]


def _cell(interval: Interval) -> str:
    return str(interval) if np.isfinite(interval.low) else f"{interval.value:.3f}"
