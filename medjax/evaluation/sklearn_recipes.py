"""Recipes of probes that scikit-learn fits: logistic regression in two ways."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from medjax.evaluation.choosing import Fitted, first_best, known_rows, value

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_Search = Callable[[Callable[[Any], float]], Any]


def newton(x: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], exclusive: bool = False) -> Fitted:
    """Logistic regression by Newton's method, C among `STRENGTHS`; the strongest regularisation in doubt."""
    return _fit(
        x,
        labels,
        exclusive,
        lambda c: LogisticRegression(C=c, solver="newton-cholesky", max_iter=100),
        lambda value_of: first_best(STRENGTHS, value_of),
    )


def lbfgs(x: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], exclusive: bool = False) -> Fitted:
    """Logistic regression by L-BFGS of at most 1000 iterations, C found as in CLIP (arXiv 2103.00020, appendix A.3):
    the best of 1e-6, 1e-4, ..., 1e6, then the interval around it halved down to 8 steps per decade. CLIP compares by
    accuracy, this by AUROC."""
    return _fit(
        x,
        labels,
        exclusive,
        lambda e: LogisticRegression(C=10.0**e, solver="lbfgs", max_iter=1000),
        halving_search,
    )


def halving_search(value_of: Callable[[float], float]) -> float:
    """The exponent of ten with the highest value: of -6, -4, ..., 6, then of the neighbours at 1, 1/2, 1/4 and 1/8;
    where values are equal the first found stays."""
    best = first_best([float(e) for e in range(-6, 7, 2)], value_of)
    for step in (1.0, 0.5, 0.25, 0.125):
        near = [e for e in (best - step, best + step) if -6.0 <= e <= 6.0]
        best = first_best([best, *near], value_of)
    return best


def _rotated(x: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The features in as many dimensions as there are training examples, if those are fewer: what is at right angles to
    all of them has weight zero under an L2 penalty, so that the scores are the same."""
    if x["train"].shape[1] <= len(x["train"]):
        return x
    basis = np.linalg.svd(x["train"], full_matrices=False)[2].T
    return {k: v @ basis for k, v in x.items()}


def _fit(x, labels, exclusive: bool, model: Callable[[Any], Any], search: _Search) -> Fitted:
    x = _rotated(x)
    if exclusive:
        scores, chosen = _search(x, labels, True, model, search)
        return Fitted(scores, [chosen])
    found = [
        _search(x, {k: y[:, i] for k, y in labels.items()}, False, model, search)
        for i in range(labels["train"].shape[1])
    ]
    return Fitted({k: np.stack([s[k] for s, _ in found], axis=1) for k in found[0][0]}, [c for _, c in found])


def _search(x, labels, exclusive: bool, model: Callable[[Any], Any], search: _Search) -> tuple[dict, Any]:
    """Scores of validation and test under the setting that validation chose, and the setting."""
    if exclusive:
        known = ~np.isnan(labels["train"][:, 0])
        truth = labels["train"][known].argmax(1)
    else:
        known, truth = known_rows(labels["train"])
    fitted: dict[Any, Any] = {}

    def value_of(setting: Any) -> float:
        if setting not in fitted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted[setting] = model(setting).fit(x["train"][known], truth)
        return value(_scores(fitted[setting], x["validation"], exclusive), labels["validation"], exclusive)

    chosen = search(value_of)
    return {k: _scores(fitted[chosen], x[k], exclusive) for k in ("validation", "test")}, {"C": fitted[chosen].C}


def _scores(model: Any, x: np.ndarray, exclusive: bool) -> np.ndarray:
    if not len(x):
        return np.zeros((0, len(model.classes_)) if exclusive else 0)
    return model.predict_proba(x) if exclusive else model.decision_function(x)
