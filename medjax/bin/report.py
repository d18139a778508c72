"""One page from any set of results: python -m medjax.bin.report --workdir=RUN, or --results=A/results.json,DIR.

Of a run it reads the training metrics, every results.json below RUN/evaluation and the export's check. --results names
files or folders of any models, other people's too; those of several models on the same examples stand side by side.
Writes summary.json and one report.html that needs no other file, and prints a short table.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

import medjax
from medjax.bin import cli
from medjax.errors import UserError
from medjax.evaluation import plots
from medjax.evaluation.page import Page
from medjax.evaluation.reporting import sections
from medjax.evaluation.reporting.comparing import labels
from medjax.evaluation.reporting.gathering import Evaluation, gather, gather_run
from medjax.evaluation.reporting.opening import Read, cautions, opening
from medjax.evaluation.reporting.reading import headlines, measurements
from medjax.evaluation.reporting.vocabulary import order, section, spoken
from medjax.storage import local_path

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_RESULTS = flags.DEFINE_list("results", [], "Files results.json, or folders with such files below them.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder of summary.json and report.html; default: the workdir.")
_PARTS = {"zero_shot": ("zero_shot",), "retrieval": ("retrieval", "joint_retrieval"), "probe": ("probe",)}


def main() -> None:
    """Writes summary.json and report.html."""
    workdir = local_path(_WORKDIR.value, "report") if _WORKDIR.value else None
    if not workdir and not _RESULTS.value:
        raise UserError("pass --workdir, the folder of a run, or --results=FILE[,DIR]")
    if not workdir and not _OUTPUT.value:
        raise UserError("pass --output=DIR, since --results does not say where the report belongs")
    output = Path(_OUTPUT.value) if _OUTPUT.value else workdir
    history = _history(workdir) if workdir else {}
    export = _read(workdir / "export" / "torch" / "medjax_export.json") if workdir else None
    own = gather_run(workdir) if workdir else []
    others = gather(_RESULTS.value)
    known = {e.path.resolve() for e in own}
    every = sorted((*own, *(e for e in others if e.path.resolve() not in known)), key=lambda e: order(e.measured))
    read = [(e, measurements(e)) for e in every]
    summary = summarise_run(history, own, export) if workdir else {"medjax": medjax.__version__}
    summary["evaluations"] = [_summarise(e, found) for e, found in read]
    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    title = f"Run {workdir.absolute().name}" if workdir else f"Results of {_models([e for e, _ in read])}"
    page = Page(title, f"medjax {medjax.__version__}; what was measured, on whom, and how sure it is")
    _fill(page, workdir, output, history, summary, read)
    page.save(output / "report.html")
    rows = _training_rows(summary)
    cli.print_table(("what", "value", "strongest control"), [*rows, *_console_rows(read)])
    print("\n".join(cautions(read)))
    print(f"summary: {output / 'summary.json'}\nreport: {output / 'report.html'}")


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _models(evaluations: Sequence[Evaluation]) -> str:
    names = list(dict.fromkeys(e.content["subject"]["name"] for e in evaluations))
    return ", ".join(names) if len(names) < 5 else f"{len(names)} models"


def _history(workdir: Path) -> dict[int, dict[str, float]]:
    """`{step: metrics}`; where a run went on after a stop, what was written last."""
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        raise UserError(
            f"no run at {workdir}: metrics.jsonl is missing; give the --workdir of medjax.bin.train, or --results="
        )
    history: dict[int, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # a killed run leaves half a line
            row = json.loads(line)
            history.setdefault(row.pop("step"), {}).update(row)
    return dict(sorted(history.items()))


def summarise_run(
    history: Mapping[int, Mapping[str, float]], evaluations: Sequence[Evaluation], export: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What summary.json says of a run; parts that were not run are absent."""
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
    found = {e.name: e.content for e in evaluations}
    for name in [k for k in _PARTS if k in found]:
        results = found[name]
        summary.setdefault("data", results["data"])
        summary.setdefault("checkpoint", results["checkpoint"])
        summary |= {part: results[part] for part in _PARTS[name] if part in results}
    if "joint_findings" in found.get("retrieval", {}):
        summary["joint_findings"] = found["retrieval"]["joint_findings"]
    if "zero_shot" in found:
        controls = found["zero_shot"].get("controls") or {}
        summary["zero_shot_controls"] = {k: v and v.get("macro_auroc") for k, v in controls.items()}
    if export:
        summary["export"] = dict(export["verification"])
    return summary


def _summarise(e: Evaluation, found: Sequence) -> dict[str, Any]:
    """Of one results.json: whose it is, and its headline scores beside the controls."""
    scores = [
        {
            "what": list(m.key),
            **m.interval.as_dict(),
            "controls": {k: v.as_dict()["value"] for k, v in m.controls.items()},
            "clears": m.clears,
        }
        for of in headlines(list(found)).values()
        for m in of
    ]
    head = {k: e.content[k] for k in ("subject", "checkpoint")}
    data = {k: e.data[k] for k in ("name", "split", "examples", "patients", "example_list_sha256", "times_opened")}
    return {"name": e.name, **head, "data": data, "scores": scores}


def _training_rows(summary: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    rows: list[tuple[str, object, str]] = []
    if train := summary.get("train"):
        rows = [
            ("training steps", train["steps"], ""),
            ("loss, first to last", f"{train['loss_first']:.3f} to {train['loss_last']:.3f}", ""),
            ("examples per second", f"{train['examples_per_second']:.0f}", ""),
        ]
    if export := summary.get("export"):
        rows.append(("export, largest difference", f"{export['max_abs_difference']:.1e}", ""))
    return rows


def _console_rows(read: Read) -> list[tuple[str, str, str]]:
    """Up to four scores of each section."""
    names, rows = labels([e for e, _ in read]), []
    several = len({e.model for e, _ in read}) > 1
    for e, found in read:
        for name, of in headlines(list(found)).items():
            for m in of[:4]:
                whose = f"{names[e.path]}: " if several else ""
                best = f"{m.strongest[0]} {m.strongest[1]:.3f}" if m.strongest else "-"
                what = f"{whose}{section(name).title}, {m.what}, {m.metric.title}"
                rows.append((what, sections.shown(m.interval), best))
    return rows


def _fill(page: Page, workdir: Path | None, output: Path, history, summary, read: Read) -> None:
    if read:
        opening(page, read)
        sections.at_a_glance(page, read)
        sections.legend(page, read)
        sections.comparison(page, read)
    else:
        page.note("Nothing was evaluated yet: run medjax.bin.evaluate_zero_shot and its siblings with this --workdir.")
    for e, found in read:
        sections.evaluation(page, e, found, f"{_spoken(e.name)}: {e.model} on {e.data['name']}")
        target = os.path.relpath(e.path.with_name("report.html"), output)
        if not target.startswith("..") and e.path.with_name("report.html").is_file():
            page.link(target, f"{e.name} in full")  # a page elsewhere must not tell where this one's folder lies
    if workdir:
        _training(page, history, summary)


def _spoken(name: str) -> str:
    return spoken(name)[:1].upper() + spoken(name)[1:]


def _training(page: Page, history, summary) -> None:
    page.heading("Training")
    page.table(("what", "value"), [row[:2] for row in _training_rows(summary)])
    losses = [(s, row["train/loss"]) for s, row in history.items() if row.get("train/loss") is not None]
    validation = [(s, row["validation/loss"]) for s, row in history.items() if row.get("validation/loss") is not None]
    caption = f"Loss by step: {losses[0][1]:.3g} at first, {losses[-1][1]:.3g} at last"
    page.figure(plots.learning_curve(*zip(*losses, strict=True), validation), caption)


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
