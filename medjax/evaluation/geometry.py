"""The shape of an embedding space: how close pairs are, how spread out each modality is, how far modalities lie apart.

Everything is of embeddings at unit length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable

LIMIT = 2000  # studies of which all pairs are formed
_FOLDS = 5


@dataclass(frozen=True)
class ModalityGeometry:
    """One modality. ranks: "effective_rank" and "rankme", which have no interval, for a study that is drawn twice adds
    no direction. spectrum: float64[min(n, E)], singular values of the centred embeddings, the largest first.
    """

    studies: int
    uniformity: Interval
    ranks: Mapping[str, float]
    spectrum: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        ranks = {k: round(v, 4) for k, v in self.ranks.items()}
        return {"studies": self.studies, "uniformity": self.uniformity.as_dict(), **ranks}


@dataclass(frozen=True)
class PairGeometry:
    """Two modalities, over the studies that have both; see `pair_geometry` for the values."""

    studies: int
    values: Mapping[str, Interval]
    replicates: Mapping[str, np.ndarray]

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {"studies": self.studies, **{k: v.as_dict() for k, v in self.values.items()}}


def unit(x: np.ndarray) -> np.ndarray:
    """float64[n, E] at unit length; a zero row stays zero."""
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def modality_geometry(table: EmbeddingTable, replicates: int = REPLICATES) -> dict[str, ModalityGeometry]:
    """Of every modality that two studies have."""
    out = {}
    for m, present in table.present.items():
        part = table.where(present)
        if len(part) < 2:
            continue
        x = unit(part.embeddings[m])
        few, weights = _some(part, replicates)
        ranks = {"effective_rank": effective_rank(x - x.mean(axis=0)), "rankme": effective_rank(x, 1e-7)}
        spectrum = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
        out[m] = ModalityGeometry(len(part), summarise(uniformity(x[few], weights)), ranks, spectrum)
    return out


def pair_geometry(table: EmbeddingTable, replicates: int = REPLICATES) -> dict[tuple[str, str], PairGeometry]:
    """Of every two modalities of one width that two studies have both of.

    alignment: mean squared distance of a study's two embeddings (Wang & Isola, arXiv 2005.10242, alpha = 2).
    modality_gap: distance of the two means (arXiv 2203.02053). pair_cosine: of a study's own two embeddings.
    non_pair_cosine: of embeddings of different patients with different texts. contrastive_gap: the first less the
    second. separability: accuracy with which a logistic regression tells the modalities apart on patients it has not
    seen, five-fold; a half where they are mixed.
    """
    return {
        (x, y): found
        for x, y in combinations(table.embeddings, 2)
        if table.embeddings[x].shape[1] == table.embeddings[y].shape[1]
        and (found := _pair(table.where(table.all_present((x, y))), x, y, replicates)) is not None
    }


def _pair(part: EmbeddingTable, first: str, second: str, count: int) -> PairGeometry | None:
    if len(part) < 2:
        return None
    x, y = unit(part.embeddings[first]), unit(part.embeddings[second])
    weights = patient_weights(part.patients, count)
    few, few_weights = _some(part, count)
    apart = part.patients[few][:, None] != part.patients[few]
    if "text" in (first, second):
        apart &= part.texts[few][:, None] != part.texts[few]
    found = {
        "alignment": metrics.weighted_mean(np.sum((x - y) ** 2, axis=1), weights),
        "modality_gap": modality_gap(x, y, weights),
        "pair_cosine": metrics.weighted_mean(np.sum(x * y, axis=1), weights),
        "non_pair_cosine": mean_over_pairs(x[few] @ y[few].T, apart, few_weights),
    }
    found["contrastive_gap"] = found["pair_cosine"] - found["non_pair_cosine"]
    if (right := separability(x, y, part.patients)) is not None:
        found["separability"] = metrics.weighted_mean(right, weights)
    return PairGeometry(len(part), {k: summarise(v) for k, v in found.items()}, found)


def _some(part: EmbeddingTable, replicates: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `LIMIT` studies, the same for every encoder, and their weights."""
    few = np.arange(len(part))
    if len(part) > LIMIT:
        few = np.sort(np.random.default_rng(0).permutation(len(part))[:LIMIT])
    return few, patient_weights(part.patients, replicates)[:, few]


def uniformity(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r]: `log E exp(-2 |x_i - x_j|^2)` over i != j (Wang & Isola, arXiv 2005.10242, t = 2); lower is more
    uniform.

    x: float64[n, E] at unit length. weights: float64[r, n].
    """
    kernel = np.exp(-4 * (1 - np.clip(x @ x.T, -1, 1)))  # the squared distance of unit vectors is 2 - 2 cos
    return np.log(mean_over_pairs(kernel, ~np.eye(len(x), dtype=bool), weights))


def mean_over_pairs(values: np.ndarray, allowed: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r]: the mean of values[i, j] over allowed pairs, each weighing w_i w_j; NaN without any.

    values: float64[n, n]. allowed: bool[n, n]. weights: float64[r, n].
    """
    total = np.sum((weights @ (values * allowed)) * weights, axis=1)
    count = np.sum((weights @ allowed.astype(np.float64)) * weights, axis=1)
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def modality_gap(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r]: Euclidean distance of the means of x and y, float64[n, E], under weights [r, n]."""
    return np.linalg.norm(weights @ (x - y) / weights.sum(axis=1, keepdims=True), axis=1)


def effective_rank(x: np.ndarray, eps: float = 0.0) -> float:
    """`exp(-sum_k p_k log p_k)`, p_k = s_k / sum(s) + eps, with s the singular values of x, float64[n, E].

    Roy and Vetterli 2007. With eps = 1e-7 it is RankMe (arXiv 2210.02885, eq. 1), of embeddings that are not centred.
    """
    s = np.linalg.svd(x, compute_uv=False)
    if s.sum() == 0:
        return 0.0
    p = s / s.sum() + eps
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def separability(x: np.ndarray, y: np.ndarray, patients: np.ndarray) -> np.ndarray | None:
    """float64[n]: the share of a study's two embeddings, float64[n, E], whose modality is told rightly by a logistic
    regression on standardised features that was fitted without its patient; None with one patient alone."""
    folds = min(_FOLDS, len(np.unique(patients)))
    if folds < 2:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", max_iter=100))
    truth, groups = np.repeat([0, 1], len(x)), np.concatenate([patients, patients])
    told = cross_val_predict(model, np.concatenate([x, y]), truth, groups=groups, cv=GroupKFold(folds))
    return (told == truth).reshape(2, -1).mean(axis=0)
