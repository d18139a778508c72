"""Retrieval by label: does a query find studies with its findings, in its own modality or in another?

Precision at K over classes is how ConVIRT (arXiv 2010.00747) and MGCA (arXiv 2210.06044) score retrieval.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, average, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable

CUTS = (1, 5, 10, 50)
TIES = "candidates that score the same come in the order of the split"
SHARED = "shares a positive label with the query; a label that is not known is not shared"
_AT_ONCE = 2**22  # scores


@dataclass(frozen=True)
class Precision:
    """One notion of relevance. queries: that were scored; unanswerable: that had no relevant candidate, and were not.
    candidates: of the query that has fewest. values, chance: by metric, of which precision@K is there where every
    query has K candidates. replicates: float64[1 + r].
    """

    queries: int
    unanswerable: int
    candidates: int
    values: dict[str, Interval]
    chance: dict[str, float]
    replicates: dict[str, np.ndarray]

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        counts = {"queries": self.queries, "unanswerable": self.unanswerable, "candidates": self.candidates}
        return counts | {k: v.as_dict() for k, v in self.values.items()} | {"chance": _rounded(self.chance)}


@dataclass(frozen=True)
class LabelRetrieval:
    """One direction. shared: relevant is what shares a positive label. labels: by label, queries are its positives
    and candidates the studies of which it is known. macro: the mean over labels. skipped: labels, and why.
    """

    query: str
    target: str
    shared: Precision
    labels: dict[str, Precision]
    macro: dict[str, Interval]
    macro_chance: dict[str, float]
    skipped: dict[str, str]

    @property
    def name(self) -> str:
        """Such as "image_to_image"."""
        return f"{self.query}_to_{self.target}"

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "shared_label": self.shared.as_dict(),
            "macro": {**{k: v.as_dict() for k, v in self.macro.items()}, "chance": _rounded(self.macro_chance)},
            "labels": {k: p.as_dict() for k, p in self.labels.items()},
            "skipped": self.skipped,
        }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {k: round(v, 6) for k, v in values.items()}


def label_retrieval(
    table: EmbeddingTable, across: bool = True, keep_patient: bool = False, replicates: int = REPLICATES
) -> list[LabelRetrieval]:
    """Every modality by itself and, with `across`, by every other, by inner product.

    A study never finds itself, nor, without `keep_patient`, another study of its patient. A direction is left out
    where no query has a relevant candidate.
    """
    pairs = [p for p in product(table.embeddings, table.embeddings) if across or p[0] == p[1]]
    found = [_direction(table, *p, keep_patient, replicates) for p in pairs]
    return [r for r in found if r is not None]


def _direction(
    table: EmbeddingTable, query: str, target: str, keep_patient: bool, replicates: int
) -> LabelRetrieval | None:
    known = ~np.isnan(table.labels)
    asked = np.flatnonzero(table.present[query] & (table.labels == 1).any(axis=1))
    offered = np.flatnonzero(table.present[target] & known.any(axis=1))
    if not len(asked) or not len(offered):
        return None
    weights = patient_weights(table.patients, replicates)
    collected: dict[int, list[dict[str, np.ndarray]]] = {k: [] for k in range(-1, len(table.label_names))}
    for rows, order, counted in _ordered(table, query, target, asked, offered, keep_patient):
        positive = table.labels[order] == 1  # [q, g, K]
        own = table.labels[rows] == 1
        collected[-1].append(rank_metrics((positive & own[:, None]).any(axis=2), counted) | {"row": rows})
        for k in range(len(table.label_names)):
            mine, there = own[:, k], known[order, k]
            values = rank_metrics(positive[mine, :, k], (counted & there)[mine])
            collected[k].append(values | {"row": rows[mine]})
    joined = {k: {m: np.concatenate([c[m] for c in parts]) for m in parts[0]} for k, parts in collected.items()}
    results = {k: _summary(v, weights) for k, v in joined.items()}
    shared, skipped = results.pop(-1), {}
    if shared is None:
        return None
    labels = {table.label_names[k]: p for k, p in results.items() if p is not None}
    for name in table.label_names:
        if name not in labels:
            skipped[name] = "no query that is positive has a positive candidate"
    names = [m for m in shared.values if all(m in p.values for p in labels.values())]
    macro = {m: summarise(average([p.replicates[m] for p in labels.values()])) for m in names}
    chance = {m: float(np.mean([p.chance[m] for p in labels.values()])) for m in names}
    return LabelRetrieval(query, target, shared, labels, macro, chance, skipped)


def _ordered(
    table: EmbeddingTable, query: str, target: str, asked: np.ndarray, offered: np.ndarray, keep_patient: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of (queries int[q], their candidates from best to worst int[q, g], which of them count bool[q, g])."""
    gallery = table.embeddings[target][offered]
    block = max(_AT_ONCE // (len(offered) * max(len(table.label_names), 1)), 1)
    for start in range(0, len(asked), block):
        rows = asked[start : start + block]
        scores = table.embeddings[query][rows] @ gallery.T
        order = offered[np.argsort(-scores, axis=1, kind="stable")]
        counted = order != rows[:, None]
        if not keep_patient:
            counted &= table.patients[order] != table.patients[rows][:, None]
        yield rows, order, counted


def rank_metrics(relevant: np.ndarray, counted: np.ndarray, cuts: Sequence[int] = CUTS) -> dict[str, np.ndarray]:
    """Of candidates from best to worst: precision@K, R-precision and average precision of each query, float64[q].

    relevant, counted: bool[q, g]; those that do not count are as if they were not there. With R relevant candidates,
    R-precision is the precision among the first R, and average precision the mean over relevant ones of the precision
    down to each. "right" and "candidates", int[q]: R and how many count.
    """
    relevant = relevant & counted
    place, hits = np.cumsum(counted, axis=1), np.cumsum(relevant, axis=1)
    right, candidates = relevant.sum(axis=1), counted.sum(axis=1)
    some = np.maximum(right, 1)
    down_to = np.divide(hits, place, out=np.zeros(hits.shape), where=relevant)
    out = {f"precision@{k}": (relevant & (place <= k)).sum(axis=1) / k for k in cuts}
    out["r_precision"] = (relevant & (place <= right[:, None])).sum(axis=1) / some
    return out | {"average_precision": down_to.sum(axis=1) / some, "right": right, "candidates": candidates}


def chance_average_precision(right: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """float64[q]: expected average precision of a random order, `(H_n + (r - 1) / (n - 1) (n - H_n)) / n` with r
    relevant of n and H_n the harmonic number: the first j hold on average 1 + (j - 1)(r - 1) / (n - 1) relevant ones
    if the one at j is relevant."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, candidates.max(initial=0) + 1))])[candidates]
    others = np.divide(right - 1, candidates - 1, out=np.zeros(len(right)), where=candidates > 1)
    return (harmonic + others * (candidates - harmonic)) / np.maximum(candidates, 1)


def _summary(values: dict[str, np.ndarray], weights: np.ndarray) -> Precision | None:
    """Over the queries that have an answer; None without any."""
    answerable = values["right"] > 0
    if not answerable.any():
        return None
    kept = {m: v[answerable] for m, v in values.items()}
    right, candidates = kept.pop("right"), kept.pop("candidates")
    fewest, drawn = int(candidates.min()), weights[:, kept.pop("row")]
    kept = {m: v for m, v in kept.items() if "@" not in m or int(m.partition("@")[2]) <= fewest}
    kept["map"] = kept.pop("average_precision")
    share = float(np.mean(right / candidates))
    chance = dict.fromkeys(kept, share) | {"map": float(np.mean(chance_average_precision(right, candidates)))}
    replicates = {m: metrics.weighted_mean(v, drawn) for m, v in kept.items()}
    intervals = {m: summarise(v) for m, v in replicates.items()}
    return Precision(int(answerable.sum()), int((~answerable).sum()), fewest, intervals, chance, replicates)
