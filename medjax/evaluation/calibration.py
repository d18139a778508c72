"""Whether a score reads as a probability: reliability, expected calibration error, and what makes it one."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import expit, logsumexp

from medjax.evaluation.bootstrap import Interval, summarise
from medjax.evaluation.metrics import weighted_mean

BINS = 10
BINNING = f"{BINS} bins of equal numbers of examples"
_LOG_TEMPERATURES = (-7.0, 7.0)


@dataclass(frozen=True)
class Platt:
    """Probability `expit(slope * score + offset)` (Platt 1999)."""

    slope: float
    offset: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """float64[n] of scores float[n]."""
        return expit(self.slope * np.asarray(scores, np.float64) + self.offset)


def fit_platt(scores: np.ndarray, labels: np.ndarray) -> Platt:
    """By maximum likelihood with Platt's targets, (P + 1) / (P + 2) for the P positives and 1 / (N + 2) for the N
    negatives, which keep it finite where the classes are separable. scores: float[n]. labels: bool[n], both there."""
    scores, labels = np.asarray(scores, np.float64), labels.astype(bool)
    spread = scores.std() or 1.0
    z = (scores - scores.mean()) / spread
    positives, negatives = labels.sum(), (~labels).sum()
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(ab):
        logit = ab[0] * z + ab[1]
        residual = expit(logit) - target
        return np.sum(np.logaddexp(0, logit) - target * logit), np.array([residual @ z, residual.sum()])

    start = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    a, b = optimize.minimize(loss, start, jac=True, method="BFGS").x
    return Platt(float(a / spread), float(b - a * scores.mean() / spread))


def fit_temperature(logits_nc: np.ndarray, truth: np.ndarray) -> float:
    """The temperature T at which softmax(logits / T) has the highest likelihood (Guo et al. 2017, arXiv 1706.04599),
    between exp(-7) and exp(7). logits_nc: float[n, C]. truth: int[n]."""
    logits = np.asarray(logits_nc, np.float64)

    def loss(log_t):
        scaled = logits / np.exp(log_t)
        return np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(truth)), truth])

    found = optimize.minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def bin_of(probabilities: np.ndarray) -> np.ndarray:
    """int[n]: the bin of each, of `BINS` between quantiles of the probabilities; equal ones share a bin."""
    edges = np.quantile(probabilities, np.linspace(0, 1, BINS + 1))
    return np.searchsorted(edges[1:-1], probabilities)


def ece(probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error, float64[r]: the mean over `BINS` equally full bins, by weight, of the distance
    between mean probability and share of positives. The bins are those of the unweighted examples. It is above 0 by
    chance even where the probabilities are right, the more so the fewer examples there are.

    probabilities: float[n]. truth: bool[n]. weights: [r, n], how often each example counts.
    """
    members = (bin_of(probabilities)[:, None] == np.arange(BINS)).astype(np.float64)
    gaps = weights @ (members * (probabilities - truth)[:, None])
    total = weights.sum(axis=1)
    return np.divide(np.abs(gaps).sum(axis=1), total, out=np.full(len(weights), np.nan), where=total > 0)


def brier(probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[r]: the mean squared distance of probability and outcome (Brier 1950)."""
    return weighted_mean((probabilities - truth) ** 2, weights)


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean probability, share of positives, examples) of each bin that is not empty."""
    bins = bin_of(probabilities)
    return [
        (float(probabilities[bins == b].mean()), float(truth[bins == b].mean()), int((bins == b).sum()))
        for b in np.unique(bins)
    ]


@dataclass(frozen=True)
class Calibrated:
    """Probabilities float64[n] made in one way, and how good they are. how: "raw", the score as it is, "temperature"
    or "platt". fitted: the parameters that validation gave."""

    how: str
    probabilities: np.ndarray
    ece: Interval
    brier: Interval
    fitted: dict[str, float]

    def as_dict(self) -> dict:
        """For results.json."""
        return {"ece": self.ece.as_dict(), "brier": self.brier.as_dict(), **self.fitted}


def calibrate(
    validation: tuple[np.ndarray, np.ndarray] | None,
    test: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    log_odds: bool,
) -> dict[str, Calibrated]:
    """Every way that can be had, by name. validation, which the parameters are fitted on, and test are margins
    float[n] and labels bool[n]; without validation there is the raw probability alone. log_odds: whether margins are
    log odds; a raw probability and a temperature need that. weights: of `test`."""
    margins, truth = test
    ways: dict[str, tuple[np.ndarray, dict[str, float]]] = {}
    if log_odds:
        ways["raw"] = expit(margins), {}
    if validation and log_odds:
        pair = np.stack([np.zeros(len(validation[0])), validation[0]], axis=1)
        temperature = fit_temperature(pair, validation[1].astype(int))
        ways["temperature"] = expit(margins / temperature), {"temperature": temperature}
    if validation:
        platt = fit_platt(*validation)
        ways["platt"] = platt(margins), {"slope": platt.slope, "offset": platt.offset}
    return {
        how: Calibrated(how, p, summarise(ece(p, truth, weights)), summarise(brier(p, truth, weights)), fitted)
        for how, (p, fitted) in ways.items()
    }
