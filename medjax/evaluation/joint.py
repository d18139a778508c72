"""A modality by every set of others together, under a rule that says how well a candidate completes a set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import jax
import numpy as np

from medjax.evaluation.candidate_sets import CandidateAccuracy, candidate_accuracy, draw_candidates
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.retrieval import RetrievalResult, joint_retrieval
from medjax.losses.gram import Gram
from medjax.losses.objective import mean_of_products
from medjax.losses.symile import Symile

# queries {modality: [n, E]}, candidates [k, E], target, present {modality: bool[n]} -> float32[n, k]
Scorer = Callable[[Mapping[str, jax.Array], jax.Array, str, Mapping[str, jax.Array]], jax.Array]


def mip(queries, candidates, target: str, present) -> jax.Array:
    """The multilinear inner product of Symile, arXiv 2411.01053; of one query modality the inner product."""
    return Symile().score(queries, candidates, target, 1.0, present, (*queries, target))


def volume(queries, candidates, target: str, present) -> jax.Array:
    """Minus the volume that candidate and queries span (GRAM, arXiv 2412.11959)."""
    return Gram(anchor=target).score(queries, candidates, target, 1.0, present, (*queries, target))


def mean(queries, candidates, target: str, present) -> jax.Array:
    """The mean inner product of the candidate with the query modalities that are present."""
    return mean_of_products(queries, candidates, 1.0, present)


RULES: Mapping[str, Scorer] = {"mip": mip, "volume": volume, "mean": mean}
_PROBED = 32  # queries with which it is seen whether a rule tells candidates apart


@dataclass(frozen=True)
class SubsetResult:
    """A set of modalities that asks for a target: recall in the whole gallery, and the choice between ten.

    compared: whether the rule tells candidates apart; objectives that were not trained on such a set score all alike.
    """

    retrieval: RetrievalResult
    choice: CandidateAccuracy | None
    compared: bool

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        choice = self.choice.as_dict() if self.choice else None
        return {"compared": self.compared, **self.retrieval.as_dict(), "choice_of_ten": choice}


def subset_retrieval(table: EmbeddingTable, scorer: Scorer, seed: int = 0) -> dict[str, SubsetResult]:
    """Every target by every set of the other modalities, all over the same studies: those that have all modalities.

    Also the same ten candidates for every set, drawn with `seed`. Empty where fewer than two studies are complete.
    """
    part = table.where(table.all_present(table.embeddings))
    if len(part) < 2:
        return {}
    sets, out = draw_candidates(part, seed), {}
    for target in part.embeddings:
        others = [m for m in part.embeddings if m != target]
        for query in (q for size in range(1, len(others) + 1) for q in combinations(others, size)):
            found = joint_retrieval(part, target, scorer, query)
            if found is not None:
                choice = candidate_accuracy(part, query, target, scorer, sets)
                compared = bool(np.ptp(found.similarities(np.arange(min(_PROBED, len(part))))) > 0)
                out[found.name] = SubsetResult(found, choice, compared)
    return out
