"""Findings by prompts: how much better a study fits the words for presence than those for absence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medjax.data.manifest import Finding
from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, average, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable

RULE = "difference of the mean logits of positive and negative prompts"


@dataclass(frozen=True)
class FindingResult:
    """One finding. scores: float32[n] and counted: bool[n] over the whole table. auroc is None with `skipped`, why.
    replicates: float64[1 + r], the value and its bootstrap replicates.
    """

    name: str
    joint: bool
    positives: int
    negatives: int
    scores: np.ndarray
    counted: np.ndarray
    auroc: Interval | None
    replicates: np.ndarray | None
    by_modality: dict[str, Interval]
    skipped: str = ""


@dataclass(frozen=True)
class ZeroShot:
    """All findings of a data set. macro: over findings that are not joint and have both classes."""

    findings: list[FindingResult]
    macro: Interval | None
    macro_replicates: np.ndarray | None

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "rule": RULE,
            "macro_auroc": self.macro.as_dict() if self.macro else None,
            "findings": {f.name: _finding_dict(f) for f in self.findings if not f.joint},
            "joint_findings": {f.name: _finding_dict(f) for f in self.findings if f.joint},
            "skipped": {f.name: f.skipped for f in self.findings if f.skipped},
        }


def _finding_dict(f: FindingResult) -> dict:
    return {
        "auroc": f.auroc.as_dict() if f.auroc else None,
        "positives": f.positives,
        "negatives": f.negatives,
        "by_modality": {m: i.as_dict() for m, i in f.by_modality.items()},
    }


def zero_shot(
    table: EmbeddingTable,
    prompts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    findings: Mapping[str, Finding],
    scorer,
    replicates: int = REPLICATES,
) -> ZeroShot:
    """AUROC of every finding from all modalities but text, and from each of them alone.

    prompts: `{finding: (positive float32[p, E], negative float32[q, E])}`. scorer: see `Method.scorer`. A study counts
    for a finding if its label is known and the modalities that show it are present (any, if unknown). A finding is
    skipped, and says why, where no study or no counterexample has it, or a modality that shows it is not embedded.
    """
    weights = patient_weights(table.patients, replicates)
    results = [_one(table, name, findings[name], prompts[name], scorer, weights) for name in prompts]
    values = [f.replicates for f in results if f.replicates is not None and not f.joint]
    if not values:
        return ZeroShot(results, None, None)
    macro = average(values)
    return ZeroShot(results, summarise(macro), macro)


def _one(table: EmbeddingTable, name: str, finding: Finding, prompts, scorer, weights: np.ndarray) -> FindingResult:
    queries = [m for m in table.embeddings if m != "text"]
    labels = table.labels[:, table.label_names.index(name)]
    lacking = [m for m in finding.seen_in if m not in queries]
    shown = [m for m in finding.seen_in if m in queries]
    there = table.all_present(shown) if shown else np.any([table.present[m] for m in queries], axis=0)
    counted = there & ~np.isnan(labels)
    scores = _score(table, queries, prompts, scorer)
    positives, negatives = int((labels[counted] == 1).sum()), int((labels[counted] == 0).sum())
    if lacking or not positives or not negatives:
        why = f"no {'positive' if not positives else 'negative'} example in the split"
        if lacking:
            why = f"it shows in {' and '.join(lacking)}, which the encoder does not have"
        return FindingResult(name, finding.joint, positives, negatives, scores, counted, None, None, {}, why)
    values = metrics.auroc(scores[counted], labels[counted] == 1, weights[:, counted])
    alone = {}
    for m in queries:
        some = counted & table.present[m]
        if len(np.unique(labels[some])) < 2:
            continue
        value = metrics.auroc(_score(table, [m], prompts, scorer)[some], labels[some] == 1, weights[:, some])
        alone[m] = summarise(value)
    return FindingResult(name, finding.joint, positives, negatives, scores, counted, summarise(values), values, alone)


def _score(table: EmbeddingTable, queries: list[str], prompts, scorer) -> np.ndarray:
    positive, negative = prompts
    embeddings = {m: table.embeddings[m] for m in queries}
    present = {m: table.present[m] for m in queries}
    logits = np.asarray(scorer(embeddings, np.concatenate([positive, negative]), "text", present))
    return logits[:, : len(positive)].mean(1) - logits[:, len(positive) :].mean(1)
