"""Search in embedded studies by a query of one or several modalities, with filters; `medjax.bin.serve` shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from medjax.errors import UserError, check_choice
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.joint import Scorer, mean

STATES = ("present", "absent", "unknown")
# How candidates were scored -> what a reader is told of it.
RULES = {
    "inner product": "inner product of the query's embedding with the candidate's; the cosine of their angle, at most "
    "1, where the encoder normalises its embeddings",
    "joint score": "joint score that the encoder was trained with: how well the candidate completes all parts of the "
    "query; it is larger for better candidates and has no fixed range",
    "mean inner product": "mean of the candidate's inner products with each part of the query",
    "none": "no query: studies in the order of the index",
}


@dataclass(frozen=True)
class Found:
    """k results, best first. rows: int64[k], positions in the table. scores: float32[k], NaN without a query. rule:
    a key of `RULES`. matching: how many studies the filters left.
    """

    rows: np.ndarray
    scores: np.ndarray
    rule: str
    matching: int


def join(tables: Mapping[str, EmbeddingTable]) -> tuple[EmbeddingTable, np.ndarray]:
    """The splits one after the other, and the split of each row, str[n]. A patient of two splits counts as two.

    Raises:
      UserError: there is none.
    """
    if not tables:
        raise UserError("the index has no split; embed again with --splits")
    parts, first = [], 0
    for table in tables.values():
        parts.append(replace(table, patients=table.patients + first))
        first += int(table.patients.max(initial=-1)) + 1

    def both(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(values)

    whole = replace(
        parts[0],
        embeddings={m: both([p.embeddings[m] for p in parts]) for m in parts[0].embeddings},
        present={m: both([p.present[m] for p in parts]) for m in parts[0].present},
        **{k: both([getattr(p, k) for p in parts]) for k in ("patients", "texts", "labels", "rows", "ids")},
        attributes={k: both([p.attributes[k] for p in parts]) for k in parts[0].attributes},
    )
    return whole, np.repeat(list(tables), [len(t) for t in tables.values()])


def states(table: EmbeddingTable, label: str) -> np.ndarray:
    """str[n]: one of `STATES` for every study; a label above one half is present.

    Raises:
      UserError: there is no such label.
    """
    check_choice("label", label, table.label_names)
    values = table.labels[:, table.label_names.index(label)]
    return np.select([np.isnan(values), values > 0.5], ["unknown", "present"], "absent")


def search(
    table: EmbeddingTable,
    queries: Mapping[str, np.ndarray],
    target: str,
    k: int,
    keep: np.ndarray | None = None,
    scorer: Scorer | None = None,
) -> Found:
    """The k best studies that have the target; of equal scores the first in the table.

    queries: `{modality: float32[E]}`; none gives the first k studies without scores. keep: bool[n], what the filters
    leave. scorer: of the encoder, used for several modalities that do not include the target, and only where it tells
    candidates apart; otherwise the mean inner product.

    Raises:
      UserError: an unknown target, a query of another width, or k below 1.
    """
    check_choice("target", target, table.embeddings)
    if k < 1:
        raise UserError(f"at least one result must be asked for, got {k}")
    width = table.embeddings[target].shape[1]
    for modality, query in queries.items():
        if query.shape != (width,):
            raise UserError(f"the embedding of {modality} has shape {list(query.shape)}, the index has [{width}]")
    kept = table.present[target] if keep is None else table.present[target] & keep
    rows = np.flatnonzero(kept)
    if not queries or not len(rows):
        return Found(rows[:k], np.full(len(rows[:k]), np.nan, np.float32), "none", len(rows))
    scores, rule = _scores(queries, table.embeddings[target][rows], target, scorer)
    best = np.argsort(-scores, kind="stable")[:k]
    return Found(rows[best], scores[best], rule, len(rows))


def _scores(queries, candidates: np.ndarray, target: str, scorer: Scorer | None) -> tuple[np.ndarray, str]:
    """float32[n] and the rule."""
    batch = {m: jnp.asarray(q)[None] for m, q in queries.items()}
    present = {m: jnp.ones(1, bool) for m in queries}
    if len(queries) > 1 and scorer is not None and target not in queries:
        scores = np.asarray(scorer(batch, jnp.asarray(candidates), target, present))[0]
        if np.ptp(scores) > 0 or len(scores) == 1:
            return scores, "joint score"
    rule = "inner product" if len(queries) == 1 else "mean inner product"
    return np.asarray(mean(batch, jnp.asarray(candidates), target, present))[0], rule
