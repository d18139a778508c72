"""Linear probes: logistic regression on frozen features, its strength of regularisation chosen on validation."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import Interval, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Features:
    """A split for a probe. x: float32[n, D]. labels: float32[n, K], NaN unknown. patients: int[n]."""

    x: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class ProbeResult:
    """AUROC of each label on the test split. macro: their mean. skipped: labels without both classes, and where."""

    auroc: dict[str, Interval]
    replicates: dict[str, np.ndarray]
    macro: Interval | None
    macro_replicates: np.ndarray | None
    skipped: dict[str, str]

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "macro_auroc": self.macro.as_dict() if self.macro else None,
            "labels": {k: v.as_dict() for k, v in self.auroc.items()},
            "skipped": self.skipped,
        }


def linear_probe(splits: Mapping[str, Features], label_names: tuple[str, ...]) -> ProbeResult:
    """Fits on "train", chooses C among `STRENGTHS` on "validation" (the strongest where that split lacks a class),
    and scores on "test".

    Features are standardised by the training split.
    """
    scaler = StandardScaler().fit(splits["train"].x)
    scaled = {k: scaler.transform(s.x) for k, s in splits.items()}
    weights = patient_weights(splits["test"].patients)
    auroc, replicates, skipped = {}, {}, {}
    for i, name in enumerate(label_names):
        labels = {k: s.labels[:, i] for k, s in splits.items()}
        known = {k: ~np.isnan(y) for k, y in labels.items()}
        lacking = [k for k in ("train", "test") if len(np.unique(labels[k][known[k]])) < 2]
        if lacking:
            skipped[name] = f"the {lacking[0]} split has one class only"
            continue
        scores = _fit(scaled, labels, known)
        test = known["test"]
        replicates[name] = metrics.auroc(scores[test], labels["test"][test] == 1, weights[:, test])
        auroc[name] = summarise(replicates[name])
    if not replicates:
        return ProbeResult({}, {}, None, None, skipped)
    macro = np.nanmean(np.stack(list(replicates.values())), axis=0)
    return ProbeResult(auroc, replicates, summarise(macro), macro, skipped)


def _fit(x: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Test scores of the model that does best on validation."""
    train, validation = known["train"], known["validation"]
    truth = labels["validation"][validation] == 1
    choose = len(np.unique(truth)) == 2
    best, scores = -np.inf, None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x["train"][train], labels["train"][train])
        value = 0.0
        if choose:
            found = model.decision_function(x["validation"][validation])
            value = metrics.auroc(found, truth, np.ones((1, len(truth))))[0]
        if value > best:
            best, scores = value, model.decision_function(x["test"])
    return scores


def joined_features(table: EmbeddingTable, modalities: Sequence[str]) -> Features:
    """The embeddings of these modalities side by side, zero where absent, with what is present beside them."""
    parts = [table.embeddings[m] * table.present[m][:, None] for m in modalities]
    parts += [table.present[m][:, None].astype(np.float32) for m in modalities]
    return Features(np.concatenate(parts, axis=1), table.labels, table.patients)
