"""Choosing the right one of a few candidates, the protocol of Symile (arXiv 2411.01053, Symile-MIMIC)."""

import hashlib
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable

SIZE = 10
_BLOCK = 256  # queries whose candidates are scored at once


@dataclass(frozen=True)
class CandidateSets:
    """queries: int[q], studies of a table. candidates: int[q, SIZE], studies of it; the first is the query's own.
    left_out: studies for which there are not enough others. digest: of the rows of all candidates in the split.
    """

    queries: np.ndarray
    candidates: np.ndarray
    left_out: int
    digest: str


@dataclass(frozen=True)
class CandidateAccuracy:
    """How often the true candidate scores highest; where others score the same, they share the point."""

    queries: int
    left_out: int
    accuracy: Interval
    replicates: np.ndarray
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            **{"queries": self.queries, "left_out": self.left_out, "candidates": SIZE},
            "accuracy": self.accuracy.as_dict(),
            "chance": {"accuracy": 1 / SIZE},
            "candidate_list_sha256": self.digest,
        }


def draw_candidates(table: EmbeddingTable, seed: int = 0) -> CandidateSets:
    """For each study its own and `SIZE` - 1 others, drawn evenly without replacement from the studies of other
    patients with other texts. Texts count where they are embedded and both studies have one.
    """
    n, rng = len(table), np.random.default_rng(seed)
    patients, texts = table.patients, _texts(table)
    both = np.unique(np.stack([patients, texts], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    sizes = [np.bincount(x)[x] for x in (patients, texts, both)]
    enough = n - sizes[0] - sizes[1] + sizes[2] >= SIZE - 1
    queries = np.flatnonzero(enough)
    drawn = np.tile(queries[:, None], (1, SIZE))
    for place in range(1, SIZE):
        open_ = np.arange(len(queries))
        while len(open_):  # draws anew whatever may not stand there, which leaves the rest equally likely
            drawn[open_, place] = rng.integers(n, size=len(open_))
            new, query = drawn[open_, place], queries[open_]
            wrong = (patients[new] == patients[query]) | (texts[new] == texts[query])
            open_ = open_[wrong | (drawn[open_, :place] == new[:, None]).any(axis=1)]
    rows = np.ascontiguousarray(table.rows[drawn], np.int64)
    return CandidateSets(queries, drawn, n - len(queries), hashlib.sha256(rows.tobytes()).hexdigest())


def _texts(table: EmbeddingTable) -> np.ndarray:
    """int[n]: equal for equal texts; a study without one has a number of its own."""
    n = len(table)
    if "text" not in table.embeddings:
        return np.arange(n)
    numbers = np.where(table.present["text"], table.texts, table.texts.max(initial=0) + 1 + np.arange(n))
    return np.unique(numbers, return_inverse=True)[1].reshape(-1)


def candidate_accuracy(
    table: EmbeddingTable, query: tuple[str, ...], target: str, scorer, sets: CandidateSets
) -> CandidateAccuracy | None:
    """Of these sets of the same table; None where there is no query. scorer: see `Method.scorer`. All studies must
    have the modalities."""
    if not len(sets.queries):
        return None
    right = [
        _right(table, query, target, scorer, sets.queries[i : i + _BLOCK], sets.candidates[i : i + _BLOCK])
        for i in range(0, len(sets.queries), _BLOCK)
    ]
    weights = patient_weights(table.patients, REPLICATES)[:, sets.queries]
    replicates = metrics.weighted_mean(np.concatenate(right), weights)
    return CandidateAccuracy(len(sets.queries), sets.left_out, summarise(replicates), replicates, sets.digest)


def _right(table, query, target, scorer, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """float64[q]: 1 where the first candidate is best, a share where others are level with it."""
    present = {m: jnp.ones(len(rows), bool) for m in query}
    queries = {m: jnp.asarray(table.embeddings[m][rows]) for m in query}
    offered, place = np.unique(candidates, return_inverse=True)
    scores = np.asarray(scorer(queries, jnp.asarray(table.embeddings[target][offered]), target, present))
    scores = np.take_along_axis(scores, place.reshape(candidates.shape), axis=1)
    best = scores[:, :1] >= scores.max(axis=1, keepdims=True)
    level = (scores == scores[:, :1]).sum(axis=1)
    return np.where(best[:, 0], 1 / level, 0.0)
