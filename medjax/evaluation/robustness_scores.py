"""Scores that can be taken again on a damaged table: fixed examples, fixed thresholds, fixed probes."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medjax.data.manifest import Finding
from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import average, patient_weights
from medjax.evaluation.choosing import first_best, value
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import joined_features
from medjax.evaluation.retrieval import joint_retrieval
from medjax.evaluation.robustness import balanced_error, best_threshold
from medjax.evaluation.sklearn_recipes import STRENGTHS
from medjax.evaluation.zero_shot import zero_shot

Judge = Callable[[EmbeddingTable], dict[str, np.ndarray]]  # the score float64[n] of each label


@dataclass(frozen=True)
class Score:
    """A score with its error. measure: table -> (value float64[1 + r], error float64[1 + r]), replicates of the same
    patients each time. chance: of the value. labels: that are in it, or directions. thresholds: of the error. skipped:
    labels that are not in it, and why.
    """

    name: str
    metric: str
    chance: float
    measure: Callable[[EmbeddingTable], tuple[np.ndarray, np.ndarray]]
    labels: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def restricted(table: EmbeddingTable, modalities: Sequence[str]) -> EmbeddingTable:
    """The table with only these modalities."""
    return replace(
        table,
        embeddings={m: table.embeddings[m] for m in modalities},
        present={m: table.present[m] for m in modalities},
    )


def zero_shot_judge(prompts, findings: Mapping[str, Finding], scorer, modalities: Sequence[str]) -> Judge:
    """By prompts, from these modalities: the score of `medjax.evaluation.zero_shot`. An example without any of them
    scores 0."""

    def judge(table: EmbeddingTable) -> dict[str, np.ndarray]:
        found = zero_shot(restricted(table, modalities), prompts, findings, scorer, replicates=0)
        return {f.name: f.scores.astype(np.float64) for f in found.findings}

    return judge


def probe_judge(
    train: EmbeddingTable, validation: EmbeddingTable, labels: Sequence[str], modalities: Sequence[str]
) -> Judge:
    """By a logistic regression of each label on the standardised embeddings of these modalities, fitted on intact
    training examples; its strength is chosen on validation, as in `medjax.evaluation.probe`. Labels of which the
    training split has one class alone are left out."""
    tables = {"train": train, "validation": validation}
    x = {k: joined_features(t, modalities).x for k, t in tables.items()}
    scaler = StandardScaler().fit(x["train"])
    x = {k: scaler.transform(v) for k, v in x.items()}
    models = {}
    for name in labels:
        y = {k: t.labels[:, t.label_names.index(name)] for k, t in tables.items()}
        known = {k: ~np.isnan(v) for k, v in y.items()}
        if len(np.unique(y["train"][known["train"]])) == 2:
            models[name] = make_pipeline(scaler, _chosen(x, y, known))

    def judge(table: EmbeddingTable) -> dict[str, np.ndarray]:
        features = joined_features(table, modalities).x
        return {k: model.decision_function(features) for k, model in models.items()}

    return judge


def _chosen(x: dict[str, np.ndarray], y: dict[str, np.ndarray], known: dict[str, np.ndarray]) -> LogisticRegression:
    """Fitted with the strength that does best on validation; with the strongest where that has one class alone."""
    models = {c: LogisticRegression(C=c, solver="newton-cholesky", max_iter=100) for c in STRENGTHS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for model in models.values():
            model.fit(x["train"][known["train"]], y["train"][known["train"]])
    best = first_best(
        STRENGTHS, lambda c: value(models[c].decision_function(x["validation"]), y["validation"], exclusive=False)
    )
    return models[best]


def class_score(
    name: str, judge: Judge, labels: Sequence[str], table: EmbeddingTable, validation: EmbeddingTable | None, counted
) -> Score | None:
    """Macro AUROC over labels, and as its error the mean balanced error at thresholds that are best on the intact
    validation split (0 where that has one class alone). None where no label can be scored.

    counted: (table, label) -> bool[n], the examples that count, on the intact table; they stay the same for damaged
    ones.
    """
    weights, first = _weights(table.patients.astype(np.int64).tobytes()), judge(table)
    before = judge(validation) if validation is not None else {}
    truth, kept, thresholds, skipped = {}, {}, {}, {}
    for k in labels:
        mask, y = counted(table, k), table.labels[:, table.label_names.index(k)]
        if k not in first or len(np.unique(y[mask])) < 2:
            skipped[k] = "one class only in the split" if k in first else "one class only in the training split"
            continue
        kept[k], truth[k], thresholds[k] = mask, y[mask] == 1, _threshold(k, before, validation, counted)
    if not kept:
        return None

    def measure(damaged: EmbeddingTable) -> tuple[np.ndarray, np.ndarray]:
        values, errors = [], []
        scores = judge(damaged)
        for k, mask in kept.items():
            values.append(metrics.auroc(scores[k][mask], truth[k], weights[:, mask]))
            errors.append(balanced_error(scores[k][mask], truth[k], thresholds[k], weights[:, mask]))
        return average(values), average(errors)

    return Score(name, "macro AUROC", 0.5, measure, tuple(kept), thresholds, skipped)


@lru_cache(maxsize=2)  # many scores of one table share them, and of a large table they are large
def _weights(patients: bytes) -> np.ndarray:
    return patient_weights(np.frombuffer(patients, np.int64))


def _threshold(label: str, scores: dict[str, np.ndarray], validation: EmbeddingTable | None, counted) -> float:
    if validation is None:
        return 0.0
    mask, y = counted(validation, label), validation.labels[:, validation.label_names.index(label)]
    return best_threshold(scores[label][mask], y[mask] == 1) if len(np.unique(y[mask])) == 2 else 0.0


def seen(findings: Mapping[str, Finding], modalities: Sequence[str], table: EmbeddingTable, label: str) -> np.ndarray:
    """bool[n]: the label is known, and present is what shows it, or any of these modalities where that is unknown."""
    finding = findings.get(label)
    shown = [m for m in finding.seen_in if m in modalities] if finding else []
    there = table.all_present(shown) if shown else np.any([table.present[m] for m in modalities], axis=0)
    return there & ~np.isnan(table.labels[:, table.label_names.index(label)])


def labels_of(names: Sequence[str], findings: Mapping[str, Finding], modalities: Sequence[str]) -> tuple[str, ...]:
    """The labels that these modalities can show, without joint findings."""
    out = []
    for name in names:
        finding = findings.get(name)
        if finding is None or (not finding.joint and set(finding.seen_in) <= set(modalities)):
            out.append(name)
    return tuple(out)


def retrieval_score(name: str, table: EmbeddingTable, query: str, targets: Sequence[str]) -> Score | None:
    """Recall@10 of each target's items by the query's embedding, mean over targets; the error is 1 less it."""

    def scorer(queries, candidates, target, present):
        return queries[query] @ candidates.T

    def found(damaged: EmbeddingTable) -> list:
        return [r for t in targets if (r := joint_retrieval(damaged, t, scorer, (query,))) is not None]

    return _recall(name, found, table)


def joint_score(name: str, table: EmbeddingTable, target: str, modalities: Sequence[str], scorer) -> Score | None:
    """Recall@10 of the target by these modalities together, as the run was trained to compare; by those of them that
    any example of the damaged table has. The table's examples should have all of them."""

    def found(damaged: EmbeddingTable) -> list:
        kept = tuple(m for m in modalities if damaged.present[m].any())
        result = joint_retrieval(damaged, target, scorer, kept) if kept else None
        return [] if result is None else [result]

    return _recall(name, found, table)


def _recall(name: str, found: Callable[[EmbeddingTable], list], table: EmbeddingTable) -> Score | None:
    first = found(table)
    if not first:
        return None

    def measure(damaged: EmbeddingTable) -> tuple[np.ndarray, np.ndarray]:
        values = average([r.recall_replicates[10] for r in found(damaged)])
        return values, 1 - values

    chance = float(np.mean([r.chance_recall[10] for r in first]))
    return Score(name, "recall@10", chance, measure, tuple(r.name for r in first))
