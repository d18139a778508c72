"""Probes of frozen features: a recipe fitted on the training split, chosen on validation, scored on the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from sklearn.decomposition import PCA

from medjax.data.batch import Batch
from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import Interval, average, number_patients, patient_weights, summarise
from medjax.evaluation.choosing import known_rows, value
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.recipes import RECIPES, Recipe

_COMPONENTS = 64


@dataclass(frozen=True)
class Features:
    """A split for a probe. x: float32[n, D]. labels: float32[n, K], NaN unknown. patients: int[n]."""

    x: np.ndarray
    labels: np.ndarray
    patients: np.ndarray

    def where(self, keep: np.ndarray) -> "Features":
        """The examples for which `keep` is true, or those of these positions, in their order."""
        return Features(self.x[keep], self.labels[keep], self.patients[keep])


@dataclass(frozen=True)
class ProbeResult:
    """Areas under the ROC and the precision-recall curve of each label on the test split. macro: the mean AUROC.
    skipped: labels without both classes, and where. chosen: the setting that validation chose for each label, and
    validation: the AUROC it has there, 0 where the split lacks a class.
    """

    auroc: dict[str, Interval]
    replicates: dict[str, np.ndarray]
    macro: Interval | None
    macro_replicates: np.ndarray | None
    skipped: dict[str, str]
    auprc: dict[str, Interval] = field(default_factory=dict)
    macro_auprc: Interval | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "macro_auroc": self.macro.as_dict() if self.macro else None,
            "macro_auprc": self.macro_auprc.as_dict() if self.macro_auprc else None,
            "labels": {k: v.as_dict() for k, v in self.auroc.items()},
            "auprc": {k: v.as_dict() for k, v in self.auprc.items()},
            "chosen": self.chosen,
            "skipped": self.skipped,
        }


def linear_probe(splits: Mapping[str, Features], label_names: Sequence[str]) -> ProbeResult:
    """`fit_probe` by the recipe "newton": logistic regression on standardised features."""
    return fit_probe(splits, label_names, RECIPES["newton"])


def fit_probe(splits: Mapping[str, Features], label_names: Sequence[str], recipe: Recipe) -> ProbeResult:
    """Fits a recipe on "train", chooses its settings by AUROC on "validation" (the first where that split lacks a
    class), and scores it on "test", whose labels it is not given."""
    columns, skipped = scorable(splits, label_names)
    if not columns:
        return ProbeResult({}, {}, None, None, skipped)
    usable = list(columns.values())
    labels = {k: splits[k].labels[:, usable] for k in ("train", "validation")}
    fitted = recipe.fit(recipe.normalised({k: s.x for k, s in splits.items()}), labels, False)
    found, truth = fitted.scores["validation"], labels["validation"]
    validation = {k: value(found[:, i], truth[:, i], False) for i, k in enumerate(columns)}
    chosen = dict(zip(columns, fitted.chosen, strict=True))
    result = score(fitted.scores["test"], splits["test"], columns)
    return replace(result, skipped=skipped, chosen=chosen, validation=validation)


def scorable(splits: Mapping[str, Features], label_names: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
    """`{label: column}` of those with both classes in the training and test split, and `{label: why}` of the others."""
    columns, skipped = {}, {}
    for i, name in enumerate(label_names):
        lacking = [k for k in ("train", "test") if not _both_classes(splits[k].labels[:, i])]
        if lacking:
            skipped[name] = f"the {lacking[0]} split has one class only"
        else:
            columns[name] = i
    return columns, skipped


def score(scores: np.ndarray, test: Features, columns: Mapping[str, int]) -> ProbeResult:
    """The result of scores float[n, k] of the test split for these labels, which stand in these columns of its own."""
    weights = patient_weights(test.patients)
    roc, pr = {}, {}
    for i, (name, column) in enumerate(columns.items()):
        known, truth = known_rows(test.labels[:, column])
        roc[name] = metrics.auroc(scores[known, i], truth, weights[:, known])
        pr[name] = metrics.average_precision(scores[known, i], truth, weights[:, known])
    macro = average(list(roc.values()))
    return ProbeResult(
        {k: summarise(v) for k, v in roc.items()},
        roc,
        summarise(macro),
        macro,
        {},
        {k: summarise(v) for k, v in pr.items()},
        summarise(average(list(pr.values()))),
    )


def _both_classes(column: np.ndarray) -> bool:
    _, truth = known_rows(column)
    return bool(truth.any() and not truth.all())


def joined_features(table: EmbeddingTable, modalities: Sequence[str], flags: bool = True) -> Features:
    """The embeddings of these modalities side by side, zero where absent, with `flags` what is present beside them."""
    parts = [table.embeddings[m] * table.present[m][:, None] for m in modalities]
    parts += [table.present[m][:, None].astype(np.float32) for m in modalities if flags]
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
