"""Gathers what was measured of a run: python -m medjax.bin.report --workdir=RUN.

Reads the training metrics, the results.json of every evaluation and the export's check; writes summary.json and one
report.html, and prints a short table.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

import medjax
from medjax.bin import cli
from medjax.errors import UserError
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.page import Page
from medjax.storage import local_path

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder of summary.json and report.html; default: the workdir.")
_EVALUATIONS = {"zero_shot": "Zero-shot findings", "retrieval": "Retrieval", "probe": "Linear probe"}


def main() -> None:
    """Writes summary.json and report.html."""
    if not _WORKDIR.value:
        raise UserError("pass --workdir, the folder of a run")
    workdir = local_path(_WORKDIR.value, "report")
    output = Path(_OUTPUT.value) if _OUTPUT.value else workdir
    found = {k: _read(workdir / "evaluation" / k / "results.json") for k in _EVALUATIONS}
    found = {k: v for k, v in found.items() if v}
    history = _history(workdir)
    summary = summarise_run(history, found, _read(workdir / "export" / "torch" / "medjax_export.json"))
    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    rows = _rows(summary)
    _page(workdir, output, history, found, summary, rows).save(output / "report.html")
    cli.print_table(("what", "value", "chance"), rows)
    if data := summary.get("data"):
        print("\n".join(data["notes"]))
    print(f"summary: {output / 'summary.json'}\nreport: {output / 'report.html'}")


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _history(workdir: Path) -> dict[int, dict[str, float]]:
    """`{step: metrics}`; where a run went on after a stop, what was written last."""
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"no run at {workdir}: metrics.jsonl is missing; give the --workdir of medjax.bin.train")
    history: dict[int, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # a killed run leaves half a line
            row = json.loads(line)
            history.setdefault(row.pop("step"), {}).update(row)
    return dict(sorted(history.items()))


def summarise_run(
    history: Mapping[int, Mapping[str, float]], found: Mapping[str, Mapping[str, Any]], export: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What summary.json holds; parts that were not run are absent."""
    trained = {step: row for step, row in history.items() if row.get("train/loss") is not None}
    if not trained:
        raise UserError("metrics.jsonl holds no finite training loss; train for at least one step")
    first, last = trained[min(trained)], trained[max(trained)]
    summary: dict[str, Any] = {
        "medjax": medjax.__version__,
        "train": {
            "steps": max(trained),
            "loss_first": first["train/loss"],
            "loss_last": last["train/loss"],
            "examples_per_second": last["train/examples_per_second"],
        },
    }
    for name, results in found.items():
        summary.setdefault("data", results["data"])
        summary.setdefault("checkpoint", results["checkpoint"])
        parts = {"zero_shot": ("zero_shot",), "retrieval": ("retrieval", "joint_retrieval"), "probe": ("probe",)}[name]
        summary |= {part: results[part] for part in parts}
    if "retrieval" in found:
        summary["joint_findings"] = found["retrieval"]["joint_findings"]
    if "zero_shot" in found:
        summary["zero_shot_controls"] = {k: v and v["macro_auroc"] for k, v in found["zero_shot"]["controls"].items()}
    if export:
        summary["export"] = dict(export["verification"])
    return summary


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    """The table of what matters most."""
    train = summary["train"]
    rows: list[tuple[str, object, str]] = [
        ("training steps", train["steps"], ""),
        ("loss, first to last", f"{train['loss_first']:.3f} to {train['loss_last']:.3f}", ""),
        ("examples per second", f"{train['examples_per_second']:.0f}", ""),
    ]
    if zero_shot := summary.get("zero_shot"):
        if zero_shot["macro_auroc"]:
            rows.append(("zero-shot macro AUROC", Interval.of(zero_shot["macro_auroc"]), "0.500"))
        rows += [
            (f"zero-shot {k} (joint)", Interval.of(f["auroc"]), "0.500")
            for k, f in zero_shot["joint_findings"].items()
            if f["auroc"]
        ]
    every = {**summary.get("retrieval", {}), **summary.get("joint_retrieval", {})}
    rows += [
        (f"{_spoken(k)} recall@10", Interval.of(r["recall@10"]), f"{r['chance']['recall@10']:.3f}")
        for k, r in every.items()
        if k.endswith("_to_text") or len(every) <= 4
    ]
    for k, s in summary.get("joint_findings", {}).items():
        rows.append((f"{k}, right statement", Interval.of(s["accuracy"]), "0.500"))
    for k, of in summary.get("probe", {}).items():
        if of["trained"]["macro_auroc"]:
            rows.append((f"linear probe, {k}", Interval.of(of["trained"]["macro_auroc"]), "0.500"))
    if export := summary.get("export"):
        rows.append(("export, largest difference", f"{export['max_abs_difference']:.1e}", ""))
    return rows


def _spoken(name: str) -> str:
    return name.replace("_to_", " to ").replace("+", " + ")


def _data(summary: Mapping[str, Any]) -> str:
    data = summary.get("data")
    if not data:
        return ""
    duties = ", ".join(data.get("terms", ()))
    return f"; data: {data['name']}, licence: {data['licence']}" + (f" ({duties})" if duties else "")


def _page(workdir: Path, output: Path, history, found, summary, rows) -> Page:
    page = Page(f"Run {workdir.absolute().name}", f"medjax {medjax.__version__}{_data(summary)}")
    for note in summary.get("data", {}).get("notes", ()):
        page.note(note)
    page.table(("what", "value", "chance"), rows)
    page.heading("Training")
    steps = [s for s, row in history.items() if row.get("train/loss") is not None]
    losses = [history[s]["train/loss"] for s in steps]
    validation = [(s, row["validation/loss"]) for s, row in history.items() if row.get("validation/loss") is not None]
    page.figure(plots.learning_curve(steps, losses, validation), "Loss by step")
    if zero_shot := summary.get("zero_shot"):
        every = {**zero_shot["findings"], **{f"{k} (joint)": f for k, f in zero_shot["joint_findings"].items()}}
        scored = [(k, Interval.of(f["auroc"])) for k, f in every.items() if f["auroc"]]
        if scored:
            page.heading("Zero-shot findings")
            page.figure(plots.intervals(scored, 0.5, "AUROC"), "AUROC of every finding by prompts, 95 % intervals")
    directions = {**summary.get("retrieval", {}), **summary.get("joint_retrieval", {})}
    if directions:
        page.heading("Retrieval")
        values = [Interval.of(r["recall@10"]) for r in directions.values()]
        chance = [r["chance"]["recall@10"] for r in directions.values()]
        page.figure(plots.recall_bars([_spoken(k) for k in directions], values, chance, "recall@10"), "recall@10")
    for name in found:
        target = os.path.relpath(workdir / "evaluation" / name / "report.html", output)
        if not target.startswith(".."):  # a page elsewhere must not tell where this one's folder lies
            page.link(target, f"{_EVALUATIONS[name]} in full, with curves and examples")
    return page


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
