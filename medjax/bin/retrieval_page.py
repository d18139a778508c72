"""Tables and report of evaluate_retrieval."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medjax.bin.evaluation import Subject
from medjax.bin.retrieval_measure import Retrieved
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import summarise, verdict
from medjax.evaluation.candidate_sets import SIZE
from medjax.evaluation.page import Page
from medjax.evaluation.retrieval import CUTS, RetrievalResult, StatementRetrieval
from medjax.evaluation.thumbnails import thumbnail

Table = tuple[tuple[str, ...], list[tuple]]
_NEIGHBOURS = 3
_MATRIX = 40
_SHOWN = ("precision@1", "precision@5", "precision@10", "precision@50", "r_precision", "map")


def pair_table(result: Retrieved, before: Retrieved | None, torn: Retrieved) -> Table:
    """Recall of every pair and of every modality by all others, each on all studies that have them."""
    header = ("direction", "candidates", *(f"recall@{k}" for k in CUTS), "median rank", "chance @10", "untrained @10")
    earlier = {**before.pairwise, **before.joint} if before else {}
    without = {**torn.pairwise, **torn.joint}
    rows = [
        (
            spoken(k),
            len(r.gallery),
            *(r.recall[k] for k in CUTS),
            f"{r.median_rank.value:.0f} of {len(r.gallery)}",
            f"{r.chance_recall[10]:.3f}",
            f"{earlier[k].recall[10].value:.3f}" if k in earlier else "-",
            f"{without[k].recall[10].value:.3f}",
        )
        for k, r in {**result.pairwise, **result.joint}.items()
    ]
    return (*header, "shuffled @10"), rows


def subset_table(result: Retrieved, before: Retrieved | None, torn: Retrieved) -> Table:
    """Every set of modalities that asks for another, on the studies that have all."""
    right = f"right of {SIZE}"
    header = ("together", "candidates", "recall@10", "chance @10", right, "chance", "untrained", "shuffled")
    rows = []
    for k, r in result.subsets.items():
        others = [x.subsets[k].choice if x and k in x.subsets else None for x in (before, torn)]
        rows.append(
            (
                spoken(k),
                len(r.retrieval.gallery),
                r.retrieval.recall[10] if r.compared else "not compared",
                f"{r.retrieval.chance_recall[10]:.3f}",
                r.choice.accuracy if r.choice and r.compared else "-",
                f"{1 / SIZE:.3f}",
                *(f"{x.accuracy.value:.3f}" if x else "-" for x in others),
            )
        )
    return header, rows


def label_table(result: Retrieved, before: Retrieved | None, torn: Retrieved) -> Table:
    """Precision by shared label, of every direction."""
    shown = [m for m in _SHOWN if all(m in r.shared.values for r in result.labels.values())]
    names = {"r_precision": "R-precision", "map": "mAP"}
    header = ("by label", "queries", *(names.get(m, m) for m in shown), "chance mAP", "untrained mAP", "shuffled mAP")
    rows = []
    for k, r in result.labels.items():
        others = [x.labels[k].shared if x and k in x.labels else None for x in (before, torn)]
        rows.append(
            (
                spoken(k),
                r.shared.queries,
                *(r.shared.values[m] for m in shown),
                f"{r.shared.chance['map']:.3f}",
                *(f"{x.values['map'].value:.3f}" if x else "-" for x in others),
            )
        )
    return header, rows


def statement(s: StatementRetrieval, before: Retrieved | None) -> str:
    """One line of the choice between two statements."""
    control = ""
    if before:
        untrained = before.statements[s.finding]
        gain = verdict(summarise(s.replicates - untrained.replicates))
        control = f", untrained {untrained.accuracy}: {gain}"
    return (
        f"{s.finding}, by {' + '.join(s.query)} together: right statement for {s.accuracy} of {s.studies} studies "
        f"(chance 0.500{control})"
    )


def fill(
    page: Page,
    subject: Subject,
    result: Retrieved,
    before: Retrieved | None,
    torn: Retrieved,
    policies: Mapping[str, Any],
    examples: int,
) -> None:
    """Everything below the head of the page."""
    if result.pairwise:
        _between(page, result, before, torn, policies)
    if result.labels:
        _by_label(page, result, before, torn, policies["rules"])
    if not result.pairwise:
        return
    shown = _most_telling(result)
    page.heading(f"Similarity: {spoken(shown.name)}", 3)
    studies = np.arange(min(_MATRIX, len(shown.rows)))
    caption = f"The first {len(studies)} studies; their own candidates are on the diagonal"
    picture = plots.similarity_matrix(shown.similarities(studies), " + ".join(shown.query), shown.target)
    page.figure(picture, caption)
    if examples and subject.dataset:
        page.heading(f"Nearest neighbours: {spoken(shown.name)}", 3)
        page.text("The query is blue; the candidate of the same study has a green frame.")
        chosen = np.linspace(0, len(shown.rows) - 1, min(examples, len(shown.rows))).astype(int)
        for i, best in zip(chosen, shown.nearest(chosen, _NEIGHBOURS), strict=True):
            page.cards(_cards(subject, shown, int(i), best))


def _between(page: Page, result: Retrieved, before, torn: Retrieved, policies: Mapping[str, Any]) -> None:
    page.text(
        "Candidates are all studies of the split that have query and target; identical texts are one candidate. A "
        "candidate is right if it belongs to the query's study or to one with an identical text; "
        f"{policies['rules']['ties']}. Shuffled: embeddings dealt out anew among the studies, which leaves chance."
    )
    if texts := policies["texts"]:
        page.text(
            "{distinct} texts of {studies} studies; {duplicated} of them belong to several studies, "
            "{studies_that_share_one} in all.".format(**texts)
        )
    page.table(*pair_table(result, before, torn))
    for s in result.statements.values():
        page.text(statement(s, before) + ".")
    if result.unasked:
        page.note(f"Joint findings are not asked for: {result.unasked}.")
    every = [*result.pairwise.values(), *result.joint.values()]
    chance = [r.chance_recall[10] for r in every]
    bars = plots.recall_bars([spoken(r.name) for r in every], [r.recall[10] for r in every], chance, "recall@10")
    page.figure(bars, "recall@10 with intervals")
    header, rows = subset_table(result, before, torn)
    if not rows:
        return
    page.heading("Together")
    page.text(
        f"Rule: {_RULES[policies['rules']['joint']]}. All rows are of the same studies, those with every modality, so "
        f"that they can be compared. Right of {SIZE}: the true candidate scores highest among {SIZE}, the others drawn "
        "from other patients with other texts; candidates that score the same share the point. "
        "Not compared: the rule scores all candidates of this set the same."
    )
    page.table(header, rows)


_RULES = {
    "trained": "as the objectives were trained: mean of inner products, multilinear inner product, or minus the "
    "volume, each at its own scale and weight",
    "mip": "multilinear inner product",
    "volume": "minus the volume that the candidate spans with the queries",
    "mean": "mean of inner products",
}


def _by_label(page: Page, result: Retrieved, before, torn: Retrieved, rules: Mapping[str, Any]) -> None:
    page.heading("By label")
    others = "do not count" if rules["same_patient_by_label"] == "exclude" else "count like any"
    page.text(
        f"A candidate is relevant if it {rules['relevant_by_label']}. A study does not find itself, and other studies "
        f"of its patient {others}; {rules['ties_by_label']}. Chance is the expectation of a random order."
    )
    page.table(*label_table(result, before, torn))
    page.heading("Each label", 3)
    page.text("Queries are positive for the label, candidates are studies of which it is known.")
    names = sorted({k for r in result.labels.values() for k in r.labels})
    rows = []
    for k, label in ((k, label) for k, r in result.labels.items() for label in names if label in r.labels):
        p = result.labels[k].labels[label]
        numbers = p.queries, p.values["map"], f"{p.chance['map']:.3f}"
        rows.append((spoken(k), label.replace("_", " "), *numbers, _then(before, k, label)))
    rows += [
        (spoken(k), "mean of labels", "", r.macro["map"], f"{r.macro_chance['map']:.3f}", _then(before, k, ""))
        for k, r in result.labels.items()
        if "map" in r.macro
    ]
    page.table(("direction", "label", "queries", "mAP", "chance", "untrained"), rows)
    skipped = sorted({f"{label}: {why}" for r in result.labels.values() for label, why in r.skipped.items()})
    if skipped:
        page.text(f"Not scored in some direction: {'; '.join(skipped)}.")


def _then(before: Retrieved | None, direction: str, label: str) -> str:
    """mAP of the untrained encoder for a label, or, for "", of all labels."""
    if before is None or direction not in before.labels:
        return "-"
    of = before.labels[direction]
    values = of.labels[label].values if label in of.labels else ({} if label else of.macro)
    return f"{values['map'].value:.3f}" if "map" in values else "-"


def _most_telling(result: Retrieved) -> RetrievalResult:
    """The joint direction to the reports where there is one, else the best pair."""
    to_text = [r for r in result.joint.values() if r.target == "text"]
    return to_text[0] if to_text else max(result.pairwise.values(), key=lambda r: r.recall[10].value)


def _cards(subject: Subject, result: RetrievalResult, query: int, best: np.ndarray) -> list[tuple[str, str]]:
    def show(row: int, modality: str) -> str:
        return thumbnail(subject.dataset, subject.split, row, modality)

    row = int(result.rows[query])
    cards = [("query", f"<b>query: {m}</b><br>{show(row, m)}") for m in result.query]
    for place, column in enumerate(best, 1):
        text = f"<b>{result.target}, place {place}</b><br>{show(int(result.candidates[column]), result.target)}"
        cards.append(("right" if column == result.own[query] else "", text))
    return cards


def spoken(name: str) -> str:
    """A direction in words."""
    return name.replace("_to_", " to ").replace("+", " + ")
