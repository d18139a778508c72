"""Retrieval between modalities, and of one modality by all others together."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable

CUTS = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalResult:
    """One direction. gallery: number of candidates, one a study, queried by the same studies. Identical texts are one
    candidate, and a candidate is right if it belongs to the query's study or, where the query has a text, to one with
    the same text. scores: float32[n, gallery]. own: int[n], the column of each query's own candidate. rows: int[n],
    of the queries in the split; candidates: int[gallery], of the candidates.
    """

    query: tuple[str, ...]
    target: str
    gallery: int
    recall: dict[int, Interval]
    recall_replicates: dict[int, np.ndarray]
    median_rank: Interval
    chance_recall: dict[int, float]
    chance_median_rank: float
    scores: np.ndarray
    own: np.ndarray
    rows: np.ndarray
    candidates: np.ndarray

    @property
    def name(self) -> str:
        """Such as "image_to_text"."""
        return f"{'+'.join(self.query)}_to_{self.target}"

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "gallery": self.gallery,
            **{f"recall@{k}": v.as_dict() for k, v in self.recall.items()},
            "median_rank": self.median_rank.as_dict(),
            "chance": {
                **{f"recall@{k}": v for k, v in self.chance_recall.items()},
                "median_rank": self.chance_median_rank,
            },
        }


def pairwise_retrieval(table: EmbeddingTable, replicates: int = REPLICATES) -> list[RetrievalResult]:
    """Every ordered pair of modalities, by inner product, over the studies that have both."""
    out = []
    for query, target in permutations(table.embeddings, 2):
        part = table.where(table.all_present((query, target)))
        if len(part) > 1:
            first, own = _candidates(part, target)
            scores = part.embeddings[query] @ part.embeddings[target][first].T
            out.append(_evaluate(part, (query,), target, scores, first, own, replicates))
    return out


def joint_retrieval(
    table: EmbeddingTable, target: str, scorer, query: tuple[str, ...] | None = None
) -> RetrievalResult | None:
    """Candidates of `target` by all other modalities (or these) together, over the studies that have all of them."""
    query = tuple(m for m in table.embeddings if m != target) if query is None else query
    part = table.where(table.all_present((*query, target)))
    if len(part) < 2:
        return None
    queries = {m: part.embeddings[m] for m in query}
    present = {m: part.present[m] for m in query}
    first, own = _candidates(part, target)
    scores = np.asarray(scorer(queries, part.embeddings[target][first], target, present))
    return _evaluate(part, query, target, scores, first, own, REPLICATES)


def _candidates(part: EmbeddingTable, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The studies whose items are the candidates, and the column of each study's own: equal texts share one."""
    if target != "text":
        return np.arange(len(part)), np.arange(len(part))
    _, first, own = np.unique(part.texts, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the split
    return first[order], np.argsort(order)[own.reshape(-1)]


def _evaluate(
    part: EmbeddingTable,
    query: tuple[str, ...],
    target: str,
    scores: np.ndarray,
    first: np.ndarray,
    own: np.ndarray,
    count: int,
) -> RetrievalResult:
    relevant = own[:, None] == np.arange(len(first))[None, :]
    if "text" in query:
        relevant |= part.texts[:, None] == part.texts[first][None, :]
    ranks = metrics.ranks(scores, relevant)
    weights = patient_weights(part.patients, count)
    replicates = {k: metrics.recall_at(ranks, k, weights) for k in CUTS}
    return RetrievalResult(
        query=query,
        target=target,
        gallery=len(first),
        recall={k: summarise(v) for k, v in replicates.items()},
        recall_replicates=replicates,
        median_rank=summarise(metrics.weighted_median(ranks, weights)),
        chance_recall={k: round(metrics.chance_recall(relevant, k), 6) for k in CUTS},
        chance_median_rank=metrics.chance_median_rank(relevant),
        scores=scores,
        own=own,
        rows=part.rows,
        candidates=part.rows[first],
    )


@dataclass(frozen=True)
class StatementRetrieval:
    """Choosing between the statements that a joint finding is present and that it is absent. accuracy: share of
    studies for which the right one scores higher; chance is a half. query: the modalities that show it together.
    """

    finding: str
    query: tuple[str, ...]
    studies: int
    accuracy: Interval
    replicates: np.ndarray

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "query": list(self.query),
            "studies": self.studies,
            "accuracy": self.accuracy.as_dict(),
            "chance": {"accuracy": 0.5},
        }


def statement_retrieval(
    table: EmbeddingTable, finding: str, query: tuple[str, ...], prompts, scorer
) -> StatementRetrieval | None:
    """prompts: (positive float32[p, E], negative float32[q, E]); a statement scores the mean of its prompts."""
    labels = table.labels[:, table.label_names.index(finding)]
    part = table.where(table.all_present(query) & ~np.isnan(labels))
    if len(part) < 2:
        return None
    queries = {m: part.embeddings[m] for m in query}
    present = {m: part.present[m] for m in query}
    positive, negative = (np.asarray(scorer(queries, p, "text", present)).mean(axis=1) for p in prompts)
    truth = part.labels[:, table.label_names.index(finding)] == 1
    right = np.where(positive == negative, 0.5, (positive > negative) == truth)
    replicates = metrics.weighted_mean(right.astype(np.float64), patient_weights(part.patients))
    return StatementRetrieval(finding, query, len(part), summarise(replicates), replicates)
