"""Linear probes: logistic regression on frozen features, its strength of regularisation chosen on validation."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medjax.data.batch import Batch
from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import Interval, average, number_patients, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_COMPONENTS = 64


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
    macro = average(list(replicates.values()))
    return ProbeResult(auroc, replicates, summarise(macro), macro, skipped)


def _fit(x: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Test scores of the model that does best on validation."""
    train, validation = known["train"], known["validation"]
    truth = labels["validation"][validation] == 1
    choose = len(np.unique(truth)) == 2
    best, scores = -np.inf, None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=100)
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


def raw_features(splits: Mapping[str, Sequence[Batch]], modalities: Sequence[str]) -> dict[str, Features]:
    """The preprocessed input itself as features: principal components, fitted on "train", of the mean over items.

    The control that says what an encoder adds to the pixels, samples and values that it was given.
    """
    inputs = {k: [_flat(batches, m) for m in modalities] for k, batches in splits.items()}
    reduced = {k: [] for k in splits}
    for i in range(len(modalities)):
        train = inputs["train"][i]
        pca = PCA(min(_COMPONENTS, *train.shape), svd_solver="randomized", random_state=0).fit(train)
        for k in splits:
            reduced[k].append(pca.transform(inputs[k][i]))
    out = {}
    for k, batches in splits.items():
        present = np.concatenate([_present(batches, m)[:, None] for m in modalities], axis=1)
        x = np.concatenate([*reduced[k], present.astype(np.float32)], axis=1)
        valid = np.concatenate([b.valid for b in batches])
        labels = np.concatenate([np.where(b.targets["labels_mask"], b.targets["labels"], np.nan) for b in batches])
        patients = np.concatenate([b.ids["patient"] for b in batches])
        out[k] = Features(x, labels[valid], number_patients(patients[valid]))
    return out


def _flat(batches: Sequence[Batch], modality: str) -> np.ndarray:
    """float32[n, D]: the input of the valid examples, averaged over items."""
    rows = []
    for b in batches:
        items = b.items[modality]
        leaves = [np.asarray(x, np.float32).reshape(*items.mask.shape, -1) for x in jax.tree.leaves(items.value)]
        weight = items.mask[..., None] / np.maximum(items.mask.sum(1), 1)[:, None, None]
        rows.append((np.concatenate(leaves, axis=2) * weight).sum(axis=1)[b.valid])
    return np.concatenate(rows)


def _present(batches: Sequence[Batch], modality: str) -> np.ndarray:
    return np.concatenate([b.items[modality].present[b.valid] for b in batches])
