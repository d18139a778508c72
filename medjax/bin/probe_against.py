"""--against of `evaluate_probe`: the same probe on another model's embeddings of the same studies."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject
from medjax.bin.places import open_place
from medjax.bin.probe_features import SPLITS, Probing, feature_sets, joined
from medjax.errors import UserError
from medjax.evaluation.bootstrap import average, summarise
from medjax.evaluation.compare import Difference, same_examples
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.page import Page
from medjax.evaluation.probe import ProbeResult, fit_probe

_AGAINST = flags.DEFINE_string(
    "against", "", "Another run, export or embeddings, of the same examples, to compare with, paired over patients."
)


def check(subject: Subject) -> None:
    """Raises:
    UserError: there is nothing to compare by.
    """
    if _AGAINST.value and not subject.labels:
        raise UserError(f"data set {subject.data['name']!r} has no labels; leave --against out")


def add(probing: Probing, page: Page) -> dict[str, Any]:
    """The part of results.json, printed and on the page."""
    if not _AGAINST.value:
        return {}
    other, labels, recipe = open_place(_AGAINST.value, probing.subject), probing.subject.labels, probing.recipe
    own = probing.tables["trained"]
    theirs = {split: _like(own[split], other.table(split), split) for split in SPLITS}
    sets = feature_sets([m for m in probing.modalities if m in other.modalities])
    if not sets:
        raise UserError(f"--against={_AGAINST.value} embeds none of {', '.join(probing.modalities)}")
    both = {
        what: tuple(fit_probe(joined(t, used, recipe), labels, recipe) for t in (own, theirs))
        for what, used in sets.items()
    }
    differences = {what: _differences(*pair, len(own["test"])) for what, pair in both.items()}
    name = Path(_AGAINST.value).name
    header = ("features", "label", "this", name, "difference", "")
    rows = [
        (what, label, d.own, d.other, d.gain, d.verdict) for what, of in differences.items() for label, d in of.items()
    ]
    print(f"against {_AGAINST.value}: AUROC, paired over patients")
    cli.print_table(header, [r for r in rows if r[1] == "macro"])
    page.heading(f"Against {name}")
    page.text(
        "The same probe on the other model's embeddings of the same studies; differences are paired over patients."
    )
    page.table(header, rows)
    found = {what: {label: d.as_dict() for label, d in of.items()} for what, of in differences.items()}
    return {"against": {"place": name, "probe": found}}


def _like(own: EmbeddingTable, theirs: EmbeddingTable, split: str) -> EmbeddingTable:
    """Their embeddings with the patients and labels that this one knows, so that both draw the same replicates."""
    if not same_examples(own, theirs):
        raise UserError(
            f"--against={_AGAINST.value} has {len(theirs)} examples that are not the {len(own)} of this {split} split "
            "in the same order; a paired comparison needs the same list"
        )
    return replace(theirs, patients=own.patients, labels=own.labels, label_names=own.label_names)


def _differences(own: ProbeResult, theirs: ProbeResult, examples: int) -> dict[str, Difference]:
    """Of the mean over labels, and of each label."""
    if not own.replicates:
        return {}
    pairs = {k: (v, theirs.replicates[k]) for k, v in own.replicates.items()}
    pairs = {"macro": tuple(average(list(x)) for x in zip(*pairs.values(), strict=True)), **pairs}
    return {k: Difference(summarise(a), summarise(b), summarise(a - b), examples) for k, (a, b) in pairs.items()}
