"""--exclusive of `evaluate_probe`: labels that exclude each other, as classes of one probe."""

from typing import Any

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject
from medjax.bin.probe_features import Probing
from medjax.errors import UserError, check_choice
from medjax.evaluation.exclusive import ClassesResult, classes_probe
from medjax.evaluation.multiclass import SCORES
from medjax.evaluation.page import Page

_EXCLUSIVE = flags.DEFINE_list("exclusive", [], "Labels that exclude each other, to be told apart as classes.")


def check(subject: Subject) -> None:
    """Raises:
    UserError: --exclusive names one label, the same twice, or one that is none.
    """
    group = _EXCLUSIVE.value
    for name in group:
        check_choice("label in --exclusive", name, subject.labels)
    if len(group) == 1 or len(set(group)) < len(group):
        raise UserError(f"--exclusive={','.join(group)} must name at least two labels, each once")


def add(probing: Probing, page: Page) -> dict[str, Any]:
    """The part of results.json, printed and on the page."""
    group, labels = _EXCLUSIVE.value, probing.subject.labels
    if not group:
        return {}
    found = {
        what: {n: classes_probe(f, labels, group, probing.recipe) for n, f in probing.features(used).items()}
        for what, used in probing.sets.items()
    }
    one = next(iter(found.values()))["trained"]
    header = ("features", "encoder", *(name.replace("_", " ") for name in SCORES))
    rows = [(what, n, *(r.scores[k] for k in SCORES)) for what, of in found.items() for n, r in of.items()]
    rows.append(("", "most frequent class", *(f"{one.chance[k]:.3f}" for k in SCORES)))
    said = _said(one)
    print(f"classes {', '.join(group)}: {said}")
    cli.print_table(header, rows)
    page.heading("Classes that exclude each other")
    page.text(f"{', '.join(group)}: {said}. Settings were chosen by balanced accuracy on validation.")
    page.table(header, rows)
    probes = {what: {n: r.as_dict() for n, r in of.items()} for what, of in found.items()}
    return {"exclusive": {"classes": group, "left_out": one.left_out, "probe": probes}}


def _said(result: ClassesResult) -> str:
    out = ", ".join(f"{n} of {split}" for split, n in result.left_out.items())
    return f"left out since not exactly one of them is known to be true: {out}"
