"""Zero-shot among labels that exclude each other: the class whose prompts fit best is called."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from medjax.evaluation import calibration, multiclass
from medjax.evaluation.bootstrap import REPLICATES, Interval, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.prompt_rules import Rule


@dataclass(frozen=True)
class GroupResult:
    """scores: those of `multiclass.SCORES`, replicates: of each, empty with `skipped`, why. confusion: int[C, C], true
    classes in rows. counts: examples of each class. left_out: examples of which not exactly one class is known to be
    true, or that have no modality. chance: of a class drawn at random. frequent: of calling the most frequent class.
    temperature: fitted on validation, None without it; ece: of the called class at that temperature."""

    name: str
    classes: tuple[str, ...]
    scores: dict[str, Interval]
    replicates: dict[str, np.ndarray]
    confusion: np.ndarray
    counts: dict[str, int]
    left_out: int
    chance: dict[str, float]
    frequent: dict[str, float]
    temperature: float | None = None
    ece: Interval | None = None
    skipped: str = ""

    def as_dict(self) -> dict:
        """For results.json."""
        ece = {"temperature": self.temperature, "ece": self.ece.as_dict()} if self.ece else None
        return {
            "classes": list(self.classes),
            **{k: v.as_dict() for k, v in self.scores.items()},
            "chance": self.chance,
            "most_frequent_class": self.frequent,
            "examples": self.counts,
            "left_out": self.left_out,
            "confusion": self.confusion.astype(int).tolist(),
            "calibration": ece,
            "skipped": self.skipped,
        }


def single_class(
    table: EmbeddingTable, classes: Sequence[str], queries: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows int[k] that have exactly one of these labels, all of them known, and a modality to query by, and the
    index int[k] of that label."""
    labels = table.labels[:, [table.label_names.index(c) for c in classes]]
    there = np.any([table.present[m] for m in queries], axis=0)
    rows = np.flatnonzero(there & ~np.isnan(labels).any(axis=1) & ((labels == 1).sum(axis=1) == 1))
    return rows, labels[rows].argmax(axis=1)


def class_scores(
    table: EmbeddingTable, rows: np.ndarray, prompts: Sequence[np.ndarray], queries: Sequence[str], scorer, rule: Rule
) -> np.ndarray:
    """float64[k, C] of these rows. prompts: of each class, float[p, E]."""
    part = table.where(rows)
    embeddings, present = ({m: of[m] for m in queries} for of in (part.embeddings, part.present))
    return rule.classes(rule.set_scores(embeddings, present, prompts, scorer))


def classify(
    name: str,
    classes: Sequence[str],
    tables: dict[str, EmbeddingTable],
    prompts: Sequence[np.ndarray],
    scorer,
    rule: Rule,
    replicates: int = REPLICATES,
) -> GroupResult:
    """tables: "test", the split that is scored, and "validation", if there is one, for the temperature. prompts: of
    each class float32[p, E], those for its presence."""
    test = tables["test"]
    queries = [m for m in test.embeddings if m != "text"]
    rows, truth = single_class(test, classes, queries)
    counts = {c: int((truth == i).sum()) for i, c in enumerate(classes)}
    left_out, n = len(test) - len(rows), len(classes)
    if np.count_nonzero(list(counts.values())) < 2:
        why = "fewer than two of its classes have an example of exactly one of them"
        return GroupResult(name, tuple(classes), {}, {}, np.zeros((n, n)), counts, left_out, {}, {}, skipped=why)
    scores = class_scores(test, rows, prompts, queries, scorer, rule)
    weights = patient_weights(test.patients, replicates)[:, rows]
    confusion = multiclass.confusion(scores.argmax(axis=1), truth, n, weights)
    values = {k: of(confusion) for k, of in multiclass.SCORES.items()}
    mode = np.full(len(truth), np.bincount(truth).argmax())
    called = multiclass.confusion(mode, truth, n, weights[:1])
    temperature, error = _calibration(tables, classes, prompts, queries, scorer, rule, (scores, truth, weights))
    return GroupResult(
        name,
        tuple(classes),
        {k: summarise(v) for k, v in values.items()},
        values,
        confusion[0],
        counts,
        left_out,
        {"accuracy": 1 / n, "balanced_accuracy": 1 / n, "mcc": 0.0},
        {k: float(of(called)[0]) for k, of in multiclass.SCORES.items()},
        temperature,
        error,
    )


def _calibration(tables, classes, prompts, queries, scorer, rule, measured):
    if "validation" not in tables:
        return None, None
    rows, truth = single_class(tables["validation"], classes, queries)
    if len(np.unique(truth)) < 2:
        return None, None
    logits = class_scores(tables["validation"], rows, prompts, queries, scorer, rule)
    temperature = calibration.fit_temperature(logits, truth)
    scores, truth, weights = measured
    probabilities = softmax(scores / temperature, axis=1)
    right = scores.argmax(axis=1) == truth
    return temperature, summarise(calibration.ece(probabilities.max(axis=1), right, weights))
