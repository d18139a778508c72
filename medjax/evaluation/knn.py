"""The k-nearest-neighbour probe, which fits nothing: the labels of the most similar training examples."""

from collections.abc import Mapping

import numpy as np

from medjax.evaluation.choosing import Fitted, first_best, value

NEIGHBOURS = (5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
_QUERIES = 1024  # compared with all training examples at a time


def knn(x: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], exclusive: bool = False) -> Fitted:
    """Weighted votes of the k nearest by cosine, weights exp(cosine / 0.07), as in DINO (arXiv 2104.14294, whose code
    takes k = 10, 20, 100, 200); k among those of `NEIGHBOURS` that the training examples suffice for.

    x: of unit length. A score is the share of the votes; examples whose label is unknown have none, and their place is
    taken by the next.
    """
    columns = labels["train"].shape[1]
    known = ~np.isnan(labels["train"])
    scores = {k: np.zeros((len(x[k]), columns)) for k in ("validation", "test")}
    chosen: list[dict[str, int]] = [{}] * columns
    for pattern in np.unique(known, axis=1).T:
        own = np.flatnonzero((known == pattern[:, None]).all(axis=0))
        y = labels["train"][np.ix_(pattern, own)].astype(np.float64)
        found = {k: votes(x[k], x["train"][pattern], y) for k in scores}
        sizes = list(found["validation"])
        for group in [own] if exclusive else own[:, None]:
            at = np.searchsorted(own, group)
            truth = labels["validation"][:, group if exclusive else group[0]]
            by_k = {k: v[:, at if exclusive else at[0]] for k, v in found["validation"].items()}
            k = first_best(sizes, lambda k, by_k=by_k, truth=truth: value(by_k[k], truth, exclusive))
            for split in scores:
                scores[split][:, group] = found[split][k][:, at]
            for i in group:
                chosen[i] = {"k": k}
    return Fitted(scores, chosen[:1] if exclusive else chosen)


def votes(queries: np.ndarray, keys: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """`{k: float64[q, K]}`, the share of the votes for each label among the k nearest keys.

    queries: float[q, D]. keys: float[n, D]. labels: float64[n, K], 0 or 1. Of keys equally near, the first counts.
    """
    sizes = [k for k in NEIGHBOURS if k <= len(keys)] or [len(keys)]
    out = {k: np.zeros((len(queries), labels.shape[1])) for k in sizes}
    for start in range(0, len(queries), _QUERIES):
        cosine = queries[start : start + _QUERIES] @ keys.T
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, : sizes[-1]]
        weight = np.exp(np.take_along_axis(cosine, nearest, axis=1).astype(np.float64) / TEMPERATURE)
        for k in sizes:
            share = np.einsum("qk,qkc->qc", weight[:, :k], labels[nearest[:, :k]])
            out[k][start : start + _QUERIES] = share / weight[:, :k].sum(1, keepdims=True)
    return out
