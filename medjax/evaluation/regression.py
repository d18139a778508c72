"""Ridge regression on frozen features, its regularisation chosen on validation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import Interval, patient_weights, summarise
from medjax.evaluation.probe import Features

ALPHAS = tuple(10.0**e for e in np.arange(-2, 6.5, 0.5))


@dataclass(frozen=True)
class RegressionResult:
    """On the test split. r2: against the mean of the split. mae: in the unit of the target; mean_mae: of predicting the
    mean of the training split, the control. gain: mean_mae less mae, paired. pearson: the correlation. alpha: chosen on
    validation. examples: with a known value."""

    r2: Interval
    mae: Interval
    mean_mae: Interval
    gain: Interval
    pearson: Interval
    alpha: float
    examples: int

    def as_dict(self) -> dict:
        """For results.json."""
        named = {k: getattr(self, k).as_dict() for k in ("r2", "mae", "mean_mae", "gain", "pearson")}
        return {**named, "alpha": self.alpha, "examples": self.examples}


def ridge_probe(splits: Mapping[str, Features], targets: Mapping[str, np.ndarray]) -> RegressionResult | str:
    """Ridge regression on features standardised by the training split: fitted on "train", the penalty among `ALPHAS`
    with the least squared error on "validation" (the largest where nothing is known there), scored on "test".

    targets: `{split: float32[n]}`, NaN unknown. Returns why instead where a split has too few values.
    """
    known = {k: np.isfinite(t) for k, t in targets.items()}
    y = {k: targets[k][known[k]].astype(np.float64) for k in targets}
    for k in ("train", "test"):
        if len(np.unique(y[k])) < 2:
            return f"the {k} split has fewer than two values"
    scaler = StandardScaler().fit(splits["train"].x[known["train"]].astype(np.float64))
    x = {k: scaler.transform(splits[k].x[known[k]].astype(np.float64)) for k in known if known[k].any()}
    mean = y["train"].mean()
    weights_ad = ridge(x["train"], y["train"] - mean)
    chosen = len(ALPHAS) - 1
    if "validation" in x:
        errors = ((x["validation"] @ weights_ad.T + mean - y["validation"][:, None]) ** 2).mean(0)
        chosen = int(errors.argmin())
    found = x["test"] @ weights_ad[chosen] + mean
    weights = patient_weights(splits["test"].patients)[:, known["test"]]
    mae = metrics.weighted_mean(np.abs(found - y["test"]), weights)
    control = metrics.weighted_mean(np.abs(mean - y["test"]), weights)
    rows = r2(found, y["test"], weights), mae, control, control - mae, pearson(found, y["test"], weights)
    return RegressionResult(*(summarise(v) for v in rows), ALPHAS[chosen], len(found))


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64[A, D]: the minimiser w of |x w - y|^2 + alpha |w|^2 for every alpha of `ALPHAS`, by one singular value
    decomposition. x: float64[n, D]. y: float64[n], centred as x is, so that there is no intercept."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    shrunk_ad = s / (s**2 + np.array(ALPHAS)[:, None]) * (u.T @ y)
    return shrunk_ad @ vt


def r2(found: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r]: 1 less the squared error over that of the weighted mean of the truth; NaN where that is 0."""
    mean = metrics.weighted_mean(truth, weights)
    total = np.einsum("rn,rn->r", weights, (truth - mean[:, None]) ** 2)
    return 1 - np.divide(weights @ (found - truth) ** 2, total, out=np.full(len(weights), np.nan), where=total > 0)


def pearson(found: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r]: the weighted correlation; NaN where one of both does not vary."""
    a = found - metrics.weighted_mean(found, weights)[:, None]
    b = truth - metrics.weighted_mean(truth, weights)[:, None]
    ab, aa, bb = (np.einsum("rn,rn,rn->r", weights, p, q) for p, q in ((a, b), (a, a), (b, b)))
    below = np.sqrt(aa * bb)
    return np.divide(ab, below, out=np.full(len(weights), np.nan), where=below > 0)
