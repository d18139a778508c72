"""evaluate_retrieval --against: another model on the same studies, paired over patients."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from medjax.bin.evaluation import Subject
from medjax.bin.retrieval_measure import Retrieved
from medjax.errors import UserError
from medjax.evaluation.bootstrap import Interval, summarise
from medjax.evaluation.compare import Difference, same_examples
from medjax.evaluation.embeddings import EmbeddingTable

Differences = Mapping[str, Mapping[str, Difference]]
Scored = tuple[str, str, np.ndarray, int]  # metric, direction, replicates, queries


def their_table(subject: Subject, other: Subject, place: str) -> EmbeddingTable:
    """The other's embeddings of the studies of `subject`, with the patients, texts and labels that this one knows, so
    that both draw the same replicates and the same candidates.

    Raises:
      UserError: they are of other studies.
    """
    own, theirs = subject.table(), other.table()
    if not same_examples(own, theirs):
        raise UserError(
            f"--against={place} has {len(theirs)} examples that are not the {len(own)} of this {subject.split} split "
            "in the same order; a paired comparison needs the same list"
        )
    known = {"patients": own.patients, "texts": own.texts, "labels": own.labels, "label_names": own.label_names}
    return replace(theirs, **known, rows=own.rows, ids=own.ids)


def compare(own: Retrieved, other: Retrieved) -> Differences:
    """`{metric: {direction: difference}}` of what both could be asked, on the same queries."""
    theirs = {(metric, name): (values, queries) for metric, name, values, queries in _scored(other)}
    out: dict[str, dict[str, Difference]] = {}
    for metric, name, values, queries in _scored(own):
        that, as_many = theirs.get((metric, name), (None, None))
        if that is not None and queries == as_many:
            intervals = (summarise(x) for x in (values, that, values - that))
            out.setdefault(metric, {})[name] = Difference(*intervals, queries)
    return out


def _scored(result: Retrieved) -> Iterator[Scored]:
    for name, r in {**result.pairwise, **result.joint}.items():
        yield "recall@10", name, r.recall_replicates[10], len(r.rows)
    for name, s in result.subsets.items():
        if s.choice and s.compared:
            yield "choice_of_ten", name, s.choice.replicates, s.choice.queries
    for name, label in result.labels.items():
        yield "label_map", name, label.shared.replicates["map"], label.shared.queries


def against_table(differences: Differences, spoken: Callable[[str], str]) -> tuple[tuple[str, ...], list[tuple]]:
    """One row for each difference."""
    rows = [
        (metric.replace("_", " "), spoken(name), *_cells(d))
        for metric, of in differences.items()
        for name, d in of.items()
    ]
    return ("compared", "direction", "this", "the other", "difference", ""), rows


def _cells(d: Difference) -> tuple[Interval | str, ...]:
    return f"{d.own.value:.3f}", f"{d.other.value:.3f}", d.gain, d.verdict
