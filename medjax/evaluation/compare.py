"""Two models on the same examples: differences of their AUROC, paired over patients."""

from dataclasses import dataclass

import numpy as np

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, average, patient_weights, summarise, verdict
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.zero_shot import ZeroShot


@dataclass(frozen=True)
class Difference:
    """One finding, or the macro average. own, other: AUROC of either model. gain: own less other. examples: both
    count."""

    own: Interval
    other: Interval
    gain: Interval
    examples: int

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        return verdict(self.gain)

    def as_dict(self) -> dict:
        """For results.json."""
        intervals = {"own": self.own, "other": self.other, "difference": self.gain}
        shown = {k: v.as_dict() for k, v in intervals.items()}
        return {**shown, "examples": self.examples, "verdict": self.verdict}


@dataclass(frozen=True)
class Comparison:
    """findings: of both. macro: their mean without joint ones, None where there is none. skipped: of either model."""

    findings: dict[str, Difference]
    macro: Difference | None
    skipped: dict[str, str]

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "macro_auroc": self.macro.as_dict() if self.macro else None,
            "findings": {k: d.as_dict() for k, d in self.findings.items()},
            "skipped": self.skipped,
        }


def same_examples(a: EmbeddingTable, b: EmbeddingTable) -> bool:
    """Whether two tables hold the same examples in the same order: by the hashes of their ids where those are known,
    else by their rows and labels."""
    if len(a) != len(b):
        return False
    if a.ids.any() and b.ids.any():
        return bool(np.array_equal(a.ids, b.ids))
    names = [k for k in a.label_names if k in b.label_names]
    columns = [[t.label_names.index(k) for k in names] for t in (a, b)]
    labels = [t.labels[:, c] for t, c in zip((a, b), columns, strict=True)]
    return bool(names) and np.array_equal(a.rows, b.rows) and np.array_equal(*labels, equal_nan=True)


def compare(own: ZeroShot, other: ZeroShot, table: EmbeddingTable, replicates: int = REPLICATES) -> Comparison:
    """Resamples the patients of `table`, on whose examples both were scored, once for both; a finding is compared on
    the examples that count for both."""
    weights = patient_weights(table.patients, replicates)
    theirs = {f.name: f for f in other.findings}
    found, kept, skipped = {}, {}, {}
    for f in own.findings:
        g = theirs[f.name]
        if f.skipped or g.skipped:
            skipped[f.name] = f.skipped or f"of the other model: {g.skipped}"
            continue
        both = f.counted & g.counted
        truth = table.labels[both, table.label_names.index(f.name)] == 1
        pair = [metrics.auroc(x.scores[both], truth, weights[:, both]) for x in (f, g)]
        if not np.isfinite([pair[0][0], pair[1][0]]).all():
            skipped[f.name] = "the examples that count for both have one class only"
            continue
        found[f.name] = _difference(*pair, int(both.sum()))
        if not f.joint:
            kept[f.name] = pair
    macro = None
    if kept:
        macro = _difference(*(average([p[i] for p in kept.values()]) for i in (0, 1)), len(table))
    return Comparison(found, macro, skipped)


def _difference(own: np.ndarray, other: np.ndarray, examples: int) -> Difference:
    return Difference(summarise(own), summarise(other), summarise(own - other), examples)
