"""Metrics as pure functions of scores and weights; a leading axis of weights gives bootstrap replicates at once."""

import math

import numpy as np


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, float64[r]; ties count half. NaN where a class has no weight.

    scores: [n]. labels: bool[n]. weights: [r, n], how often each example counts.
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    scores, labels, weights = scores[order], labels[order].astype(bool), weights[:, order]
    starts = np.flatnonzero(np.r_[True, np.diff(scores) > 0])
    positive = np.add.reduceat(weights * labels, starts, axis=1)
    negative = np.add.reduceat(weights * ~labels, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    wins = np.sum(positive * (below + negative / 2), axis=1)
    pairs = positive.sum(1) * negative.sum(1)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve as steps, float64[r]: the sum of precision times the rise of recall over
    the distinct scores, as in scikit-learn. NaN where there is no positive weight. By chance it is the prevalence.

    scores: [n]. labels: bool[n]. weights: [r, n], how often each example counts.
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    scores, labels, weights = scores[order], labels[order].astype(bool), weights[:, order]
    starts = np.flatnonzero(np.r_[True, np.diff(scores) < 0])
    found = np.add.reduceat(weights * labels, starts, axis=1)
    called = np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1)
    hits = np.cumsum(found, axis=1)
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    area, total = np.sum(precision * found, axis=1), hits[:, -1]
    return np.divide(area, total, out=np.full(len(weights), np.nan), where=total > 0)


def ranks(scores, relevant):
    """The rank of each query's best right answer, [n]; 1 is first.

    scores: [n, k] of candidates. relevant: bool[n, k], at least one a row. A wrong candidate that scores the same
    counts half a place. Arrays of NumPy or of JAX, also under `jax.jit`.
    """
    xp = scores.__array_namespace__()
    best = xp.where(relevant, scores, -xp.inf).max(axis=1, keepdims=True)
    above = xp.sum((scores > best) & ~relevant, axis=1)
    level = xp.sum((scores == best) & ~relevant, axis=1)
    return 1.0 + above + level / 2


def recall_at(ranks_n: np.ndarray, k: int, weights: np.ndarray) -> np.ndarray:
    """float64[r]: weighted share of queries whose rank is at most k."""
    return weighted_mean((ranks_n <= k).astype(np.float64), weights)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r] of values [n] under weights [r, n]; NaN where there is no weight."""
    total = weights.sum(axis=1)
    return np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r]: the smallest value at which half of the weight is reached."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[:, order], axis=1)
    position = np.argmax(cumulative >= cumulative[:, -1:] / 2, axis=1)
    return values[order][position]


def chance_recall(right: np.ndarray, candidates: int, k: int) -> float:
    """Expected recall@k of a random order: the mean of 1 - C(n - r, k) / C(n, k), with r right answers of n.

    right: int[q], of each query.
    """
    k = min(k, candidates)
    counts, times = np.unique(right, return_counts=True)
    misses = [math.comb(candidates - int(r), k) / math.comb(candidates, k) for r in counts]
    return float(1 - np.average(misses, weights=times))


def chance_median_rank(right: np.ndarray, candidates: int) -> float:
    """Median over queries of the expected rank of the first right answer in random order, (n + 1) / (r + 1).

    right: int[q], the right answers of each query among the n candidates.
    """
    return float(np.median((candidates + 1) / (right + 1)))


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from the strictest threshold to the laxest."""
    order = np.argsort(-scores, kind="stable")
    labels = labels[order].astype(bool)
    last = np.r_[np.diff(scores[order]) != 0, True]
    tp, fp = np.cumsum(labels)[last], np.cumsum(~labels)[last]
    return np.r_[0, fp / max(fp[-1], 1)], np.r_[0, tp / max(tp[-1], 1)]
