"""Scores of classes that exclude each other, from confusion matrices of all bootstrap replicates at once."""

import numpy as np


def confusion(found: np.ndarray, truth: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    """float64[r, C, C]: the weight of the examples of each true class (rows) that were called each class (columns).

    found, truth: int[n] of C classes. weights: [r, n], how often each example counts.
    """
    cell = truth * classes + found
    return (weights @ (cell[:, None] == np.arange(classes**2)).astype(np.float64)).reshape(-1, classes, classes)


def accuracy(table: np.ndarray) -> np.ndarray:
    """float64[r]: the share of the examples that is called right. table: [r, C, C], as `confusion` gives it."""
    return _share(np.trace(table, axis1=1, axis2=2), table.sum((1, 2)))


def balanced_accuracy(table: np.ndarray) -> np.ndarray:
    """float64[r]: the mean recall of the classes that are there."""
    return _mean_where(np.einsum("rcc->rc", table), table.sum(2), table.sum(2) > 0)


def macro_f1(table: np.ndarray) -> np.ndarray:
    """float64[r]: the mean over classes that are there or were called of 2 TP / (2 TP + FP + FN)."""
    both = table.sum(1) + table.sum(2)
    return _mean_where(2 * np.einsum("rcc->rc", table), both, both > 0)


def mcc(table: np.ndarray) -> np.ndarray:
    """float64[r]: Matthews' correlation for C classes (Gorodkin 2004); 0 where all examples are or are called one."""
    n, right = table.sum((1, 2)), np.trace(table, axis1=1, axis2=2)
    found, truth = table.sum(1), table.sum(2)
    top = right * n - (found * truth).sum(1)
    below = np.sqrt((n**2 - (found**2).sum(1)) * (n**2 - (truth**2).sum(1)))
    return np.divide(top, below, out=np.zeros(len(table)), where=below > 0)


SCORES = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1, "mcc": mcc}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean_where(part: np.ndarray, whole: np.ndarray, there: np.ndarray) -> np.ndarray:
    shares = np.divide(part, whole, out=np.zeros(part.shape), where=there)
    return _share(shares.sum(1), there.sum(1).astype(np.float64))
