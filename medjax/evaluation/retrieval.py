"""Retrieval between modalities, and of one modality by several others together."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.search import Score, ranks, top_k
from medjax.losses.similarity import product

CUTS = (1, 5, 10)
TIES = "a wrong candidate that scores the same as the best right one counts half a place"


@dataclass(frozen=True)
class RetrievalResult:
    """One direction. Candidates are the items of the studies that query; identical texts are one candidate, and a
    candidate is right if it belongs to the query's study or, where the query has a text, to one with the same text.

    queries: `{modality: float32[n, E]}`. gallery: float32[g, E], of the candidates. score: of a block of queries with
    candidates. own: int[n], the column of each query's own candidate. rows: int[n], of the queries in the split;
    candidates: int[g], of the candidates. patients: int[n], of the queries.
    """

    target: str
    recall: dict[int, Interval]
    recall_replicates: dict[int, np.ndarray]
    median_rank: Interval
    chance_recall: dict[int, float]
    chance_median_rank: float
    queries: Mapping[str, np.ndarray]
    gallery: np.ndarray
    score: Score
    own: np.ndarray
    rows: np.ndarray
    candidates: np.ndarray
    patients: np.ndarray

    @property
    def query(self) -> tuple[str, ...]:
        """The modalities that query together."""
        return tuple(self.queries)

    @property
    def name(self) -> str:
        """Such as "image_to_text"."""
        return f"{'+'.join(self.query)}_to_{self.target}"

    def similarities(self, studies: np.ndarray) -> np.ndarray:
        """float32[k, k]: scores of these queries, int[k], with the candidates of the same studies."""
        chosen = {m: x[studies] for m, x in self.queries.items()}
        return np.asarray(self.score(chosen, jnp.asarray(self.gallery[self.own[studies]])))

    def nearest(self, studies: np.ndarray, k: int) -> np.ndarray:
        """int64[q, k]: columns of the best candidates of these queries, int[q]."""
        chosen = {m: x[studies] for m, x in self.queries.items()}
        return top_k(chosen, self.gallery, min(k, len(self.gallery)), score=self.score)[1]

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "gallery": len(self.gallery),
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
            out.append(_evaluate(part, (query,), target, inner_product, replicates))
    return out


def joint_retrieval(
    table: EmbeddingTable, target: str, scorer, query: tuple[str, ...] | None = None
) -> RetrievalResult | None:
    """Candidates of `target` by all other modalities (or these) together, over the studies that have all of them.

    scorer: see `Method.scorer`.
    """
    query = tuple(m for m in table.embeddings if m != target) if query is None else query
    part = table.where(table.all_present((*query, target)))
    if len(part) < 2:
        return None

    def score(queries, candidates: jax.Array) -> jax.Array:
        present = {m: jnp.ones(len(x), bool) for m, x in queries.items()}
        return scorer(queries, candidates, target, present)

    return _evaluate(part, query, target, score, REPLICATES)


def inner_product(queries: Mapping[str, jax.Array], candidates: jax.Array) -> jax.Array:
    """float32[q, k]: of the one modality that queries."""
    (x,) = queries.values()
    return product(jnp.asarray(x), candidates)


def duplicated_texts(table: EmbeddingTable) -> dict[str, int] | None:
    """How many texts there are, and how many of them belong to several studies; None without texts."""
    if "text" not in table.embeddings:
        return None
    _, times = np.unique(table.texts[table.present["text"]], return_counts=True)
    several = times > 1
    return {
        **{"studies": int(times.sum()), "distinct": len(times)},
        **{"duplicated": int(several.sum()), "studies_that_share_one": int(times[several].sum())},
    }


def _candidates(part: EmbeddingTable, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The studies whose items are the candidates, and the column of each study's own: equal texts share one."""
    if target != "text":
        return np.arange(len(part)), np.arange(len(part))
    _, first, own = np.unique(part.texts, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the split
    return first[order], np.argsort(order)[own.reshape(-1)]


def _evaluate(part: EmbeddingTable, query: tuple[str, ...], target: str, score: Score, count: int) -> RetrievalResult:
    first, own = _candidates(part, target)
    queries, gallery = {m: part.embeddings[m] for m in query}, part.embeddings[target][first]
    groups = np.unique(part.texts, return_inverse=True)[1] if "text" in (*query, target) else np.arange(len(part))
    right = np.bincount(groups[first])[groups]
    ranks_n = ranks(score, queries, gallery, groups, groups[first])
    weights = patient_weights(part.patients, count)
    replicates = {k: metrics.recall_at(ranks_n, k, weights) for k in CUTS}
    return RetrievalResult(
        target=target,
        recall={k: summarise(v) for k, v in replicates.items()},
        recall_replicates=replicates,
        median_rank=summarise(metrics.weighted_median(ranks_n, weights)),
        chance_recall={k: round(metrics.chance_recall(right, len(first), k), 6) for k in CUTS},
        chance_median_rank=metrics.chance_median_rank(right, len(first)),
        queries=queries,
        gallery=gallery,
        score=score,
        own=own,
        rows=part.rows,
        candidates=part.rows[first],
        patients=part.patients,
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
