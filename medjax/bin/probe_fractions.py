"""--fractions of `evaluate_probe`: probes fitted on parts of the training split, and the lists of who is in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject
from medjax.bin.probe_features import Probing
from medjax.errors import UserError
from medjax.evaluation.bootstrap import summarise, verdict
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.fractions import FractionResult, Part, fraction_probe, parts, read_lists, write_lists
from medjax.evaluation.page import Page

_FRACTIONS = flags.DEFINE_list("fractions", [], "Parts of the training patients to fit on, such as 0.01,0.1,1.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Draws of each part below 1; at least 3.")
_LISTS = flags.DEFINE_string(
    "fraction_lists", "", "In place of --fractions: folder of lists of examples that an earlier call wrote."
)
_Found = dict[str, dict[float, dict[str, FractionResult]]]


def check(subject: Subject) -> None:
    """Raises:
    UserError: fractions that are none, too few seeds, or both flags.
    """
    if _FRACTIONS.value and _LISTS.value:
        raise UserError("--fraction_lists says already who is in a part; leave --fractions out")
    if _SEEDS.value < 3:
        raise UserError(f"--seeds={_SEEDS.value} says nothing about the spread over draws; take at least 3")
    for text in _FRACTIONS.value:
        if not 0 < _number(text) <= 1:
            raise UserError(f"--fractions: {text!r} is no part of the training split; give numbers above 0 and up to 1")
    if not subject.labels and (_FRACTIONS.value or _LISTS.value):
        raise UserError(f"data set {subject.data['name']!r} has no labels; leave --fractions and --fraction_lists out")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def add(probing: Probing, page: Page) -> dict[str, Any]:
    """The part of results.json, printed and on the page; writes the lists."""
    if not _FRACTIONS.value and not _LISTS.value:
        return {}
    subject, train = probing.subject, probing.tables["trained"]["train"]
    if _LISTS.value:
        drawn, files = read_lists(Path(_LISTS.value), train, subject.data), []
    else:
        drawn = parts(train, sorted({float(f) for f in _FRACTIONS.value}), _SEEDS.value)
        files = write_lists(subject.output / "fraction_lists", train, drawn, subject.data)
    found = _fit(probing, drawn)
    header = ("features", "fraction", "examples", "patients", "draws", "trained", "sd", "untrained", "sd", "gain")
    rows = [row for what, of in found.items() for row in _rows(what, of)]
    print("macro AUROC by how much of the training split is labelled; sd over draws")
    cli.print_table(header, rows)
    _fill(page, found, header, rows, files, train)
    return {
        "fractions": {
            "lists": str(_LISTS.value) if _LISTS.value else "fraction_lists",
            "probe": {
                what: {f"{f:g}": {n: r.as_dict() for n, r in by.items()} for f, by in of.items()}
                for what, of in found.items()
            },
        }
    }


def _fit(probing: Probing, drawn: Sequence[Part]) -> _Found:
    labels, recipe, found = probing.subject.labels, probing.recipe, {}
    for what, used in probing.sets.items():
        features = probing.features(used)
        found[what] = {
            fraction: {
                n: fraction_probe(f, labels, recipe, [p for p in drawn if p.fraction == fraction])
                for n, f in features.items()
            }
            for fraction in sorted({p.fraction for p in drawn})
        }
    return found


def _rows(what: str, of: dict[float, dict[str, FractionResult]]) -> list[tuple[object, ...]]:
    rows = []
    for fraction, by in of.items():
        best, control = by["trained"], by.get("untrained")
        row = [what, f"{fraction:g}", f"{best.examples:.0f}", f"{best.patients:.0f}", best.seeds]
        for r in (best, control):
            row += [r.macro if r and r.macro else "-", "-" if r is None or r.sd is None else f"{r.sd:.3f}"]
        gain = "-"
        if control and control.replicates is not None and best.replicates is not None:
            difference = summarise(best.replicates - control.replicates)
            gain = f"{difference}: {verdict(difference)}"
        rows.append((*row, gain))
    return rows


def _fill(page: Page, found: _Found, header, rows, files: Sequence[str], train: EmbeddingTable) -> None:
    page.heading("With a part of the labels")
    page.text(
        f"Parts of the {len(train)} training examples were drawn by patient, stratified by label; validation and test "
        "are whole. The mean is over draws, of the labels that every draw could score; its interval is over test "
        "patients, the sd over draws."
    )
    page.table(header, rows)
    for what, of in found.items():
        for fraction, by in of.items():
            if skipped := by["trained"].skipped:
                named = "; ".join(f"{k} ({why})" for k, why in skipped.items())
                page.note(f"{what}, fraction {fraction:g}: not scored: {named}.")
    if files:
        page.text("Who is in each part, for others to use with --fraction_lists:")
        for name in files:
            page.link(f"fraction_lists/{name}", name)
