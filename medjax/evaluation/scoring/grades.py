"""Scores of ordered grades, such as of severity, from confusion matrices of all bootstrap replicates at once."""

import numpy as np
from scipy.stats import kendalltau, spearmanr


def quadratic_kappa(table: np.ndarray) -> np.ndarray:
    """float64[r]: Cohen's kappa with quadratic weights (Cohen 1968), `1 - observed / expected` squared distances.

    table: float64[r, C, C], as `multiclass.confusion` gives it, of grades in their order and equally far apart. NaN
    where one grade alone is given and found.
    """
    c = table.shape[-1]
    apart = (np.arange(c)[:, None] - np.arange(c)) ** 2
    truth, found, n = table.sum(2), table.sum(1), table.sum((1, 2))
    expected = np.einsum("rc,rd,cd->r", truth, found, apart) / n
    observed = (table * apart).sum((1, 2))
    return 1 - np.divide(observed, expected, out=np.full(len(table), np.nan), where=expected > 0)


def mean_absolute_error(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """float64[r]: in units of the grades. values: float64[C], of the grades."""
    return (table * np.abs(values[:, None] - values)).sum((1, 2)) / table.sum((1, 2))


def within_one(table: np.ndarray) -> np.ndarray:
    """float64[r]: the share that is called right or the next grade, of those that occur."""
    c = table.shape[-1]
    near = np.abs(np.arange(c)[:, None] - np.arange(c)) <= 1
    return (table * near).sum((1, 2)) / table.sum((1, 2))


def rank_correlations(scores: np.ndarray, grades: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """`{name: float64[r]}`: Kendall's tau-b and Spearman's rho, of examples repeated as the weights say.

    scores, grades: float64[n]. weights: [r, n] of whole numbers. NaN where either is constant.
    """
    found = {"kendall_tau_b": [], "spearman": []}
    for w in weights.astype(int):
        x, y = np.repeat(scores, w), np.repeat(grades, w)
        constant = np.ptp(x) == 0 or np.ptp(y) == 0
        found["kendall_tau_b"].append(np.nan if constant else kendalltau(x, y).statistic)
        found["spearman"].append(np.nan if constant else spearmanr(x, y).statistic)
    return {k: np.array(v) for k, v in found.items()}
