"""Retrieval between modalities: python -m medjax.bin.evaluate_retrieval --workdir=RUN.

Every ordered pair of modalities, each modality by all others together, and, where the data set has findings that only
several modalities show together, the choice between the statements of their presence and absence; against chance and
against the encoder before training.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject, load_subject
from medjax.errors import UserError
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import Interval, summarise, verdict
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.page import Page
from medjax.evaluation.retrieval import (
    CUTS,
    RetrievalResult,
    StatementRetrieval,
    joint_retrieval,
    pairwise_retrieval,
    statement_retrieval,
)
from medjax.evaluation.thumbnails import thumbnail
from medjax.methods.base import Scorer

_EXAMPLES = flags.DEFINE_integer("examples", 3, "Queries whose nearest neighbours are shown in the report; 0 for none.")
_NEIGHBOURS = 3
_MATRIX = 40


@dataclass(frozen=True)
class Retrieved:
    """Everything that is measured of one encoder, by name."""

    pairwise: Mapping[str, RetrievalResult]
    joint: Mapping[str, RetrievalResult]
    statements: Mapping[str, StatementRetrieval]

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "retrieval": {k: r.as_dict() for k, r in self.pairwise.items()},
            "joint_retrieval": {k: r.as_dict() for k, r in self.joint.items()},
            "joint_findings": {k: s.as_dict() for k, s in self.statements.items()},
        }


def main() -> None:
    """Evaluates, prints a table, writes results.json and report.html."""
    subject = load_subject("retrieval")
    if len(subject.modalities) < 2 or subject.scorer() is None:
        raise UserError("this encoder compares no modalities with each other; use evaluate_probe")
    table = subject.table()
    result = measure(subject)
    if not result.pairwise:
        raise UserError(f"no two studies of the {subject.split} split have two modalities in common")
    untrained = subject.untrained()
    before = measure(untrained) if untrained else None
    about = subject.about(table)
    rows = _rows(result, before)
    header = ("direction", "candidates", *(f"recall@{k}" for k in CUTS), "median rank", "chance @10", "untrained @10")
    cli.print_table(header, rows)
    for s in result.statements.values():
        print(_statement(s, before))
    page = subject.page("Retrieval", about)
    _fill(page, subject, result, before, header, rows)
    gains = {k: _gain(r, before.pairwise[k]).as_dict() for k, r in result.pairwise.items()} if before else None
    controls = {"untrained": before.as_dict() if before else None}
    results = {**about, **result.as_dict(), "controls": controls, "recall@10_gain_over_untrained": gains}
    subject.save(results, page)


def measure(subject: Subject) -> Retrieved:
    """All directions, pairwise and joint, and the statements of joint findings."""
    table, scorer = subject.table(), subject.scorer()
    pairwise = {r.name: r for r in pairwise_retrieval(table)}
    joint = {}
    if len(table.embeddings) > 2:
        found = [joint_retrieval(table, target, scorer) for target in table.embeddings]
        joint = {r.name: r for r in found if r is not None}
    return Retrieved(pairwise, joint, _statements(subject, table, scorer))


def _statements(subject: Subject, table: EmbeddingTable, scorer: Scorer) -> dict[str, StatementRetrieval]:
    """Of the joint findings whose modalities the encoder has."""
    findings = {k: f for k, f in subject.findings.items() if f.joint and set(f.seen_in) <= set(table.embeddings)}
    if not findings or "text" not in subject.modalities:
        return {}
    prompts = subject.prompts(findings)
    found = {k: statement_retrieval(table, k, f.seen_in, prompts[k], scorer) for k, f in findings.items()}
    return {k: s for k, s in found.items() if s is not None}


def _gain(result: RetrievalResult, before: RetrievalResult) -> Interval:
    return summarise(result.recall_replicates[10] - before.recall_replicates[10])


def _rows(result: Retrieved, before: Retrieved | None) -> list[tuple]:
    earlier = {**before.pairwise, **before.joint} if before else {}
    pairs = [(r, earlier.get(k)) for k, r in [*result.pairwise.items(), *result.joint.items()]]
    return [
        (
            r.name.replace("_", " "),
            r.gallery,
            *(r.recall[k] for k in CUTS),
            f"{r.median_rank.value:.0f} of {r.gallery}",
            f"{r.chance_recall[10]:.3f}",
            f"{b.recall[10].value:.3f}" if b else "-",
        )
        for r, b in pairs
    ]


def _statement(s: StatementRetrieval, before: Retrieved | None) -> str:
    control = ""
    if before:
        untrained = before.statements[s.finding]
        gain = verdict(summarise(s.replicates - untrained.replicates))
        control = f", untrained {untrained.accuracy}: {gain}"
    return (
        f"{s.finding}, by {' + '.join(s.query)} together: right statement for {s.accuracy} of {s.studies} studies "
        f"(chance 0.500{control})"
    )


def _fill(page: Page, subject: Subject, result: Retrieved, before: Retrieved | None, header, rows) -> None:
    page.text(
        "Candidates are all studies of the split that have query and target; identical texts are one candidate. A "
        "candidate is right if it belongs to the query's study or to one with an identical text. Together, the other "
        "modalities are scored as the objectives of the run were trained: mean of inner products, multilinear inner "
        "product, or minus the volume, each at its own scale and weight."
    )
    page.table(header, rows)
    for s in result.statements.values():
        page.text(_statement(s, before) + ".")
    every = [*result.pairwise.values(), *result.joint.values()]
    names = [r.name.replace("_", " ") for r in every]
    chance = [r.chance_recall[10] for r in every]
    bars = plots.recall_bars(names, [r.recall[10] for r in every], chance, "recall@10")
    page.figure(bars, "recall@10 with intervals")
    shown = _most_telling(result)
    page.heading(f"Similarity: {shown.name.replace('_', ' ')}", 3)
    part = shown.scores[:_MATRIX][:, shown.own[:_MATRIX]]
    caption = f"The first {len(part)} studies; their own candidates are on the diagonal"
    page.figure(plots.similarity_matrix(part, " + ".join(shown.query), shown.target), caption)
    if _EXAMPLES.value and subject.dataset:
        page.heading(f"Nearest neighbours: {shown.name.replace('_', ' ')}", 3)
        page.text("The query is blue; the candidate of the same study has a green frame.")
        for i in np.linspace(0, len(shown.rows) - 1, min(_EXAMPLES.value, len(shown.rows))).astype(int):
            page.cards(_cards(subject, shown, int(i)))


def _most_telling(result: Retrieved) -> RetrievalResult:
    """The joint direction to the reports where there is one, else the best pair."""
    to_text = [r for r in result.joint.values() if r.target == "text"]
    return to_text[0] if to_text else max(result.pairwise.values(), key=lambda r: r.recall[10].value)


def _cards(subject: Subject, result: RetrievalResult, query: int) -> list[tuple[str, str]]:
    def show(row: int, modality: str) -> str:
        return thumbnail(subject.dataset, subject.split, row, modality)

    row = int(result.rows[query])
    cards = [("query", f"<b>query: {m}</b><br>{show(row, m)}") for m in result.query]
    best = np.argsort(-result.scores[query], kind="stable")[:_NEIGHBOURS]
    for place, column in enumerate(best, 1):
        text = f"<b>{result.target}, place {place}</b><br>{show(int(result.candidates[column]), result.target)}"
        cards.append(("right" if column == result.own[query] else "", text))
    return cards


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
