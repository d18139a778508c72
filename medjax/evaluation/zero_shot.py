"""Findings by prompts: how much better a study fits the words for presence than those for absence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.data.manifest import Finding
from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import REPLICATES, Interval, average, patient_weights, summarise
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.prompt_rules import DEFAULT, RULES, Rule

Prompts = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class FindingResult:
    """One finding. scores: float64[n] and counted: bool[n] over the whole table. auroc is None with `skipped`, why.
    replicates: float64[1 + r], the value of the AUROC and its bootstrap replicates. auprc_replicates: likewise.
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
    auprc: Interval | None = None
    auprc_replicates: np.ndarray | None = None


@dataclass(frozen=True)
class ZeroShot:
    """All findings of a data set. macro: over findings that are not joint and have both classes."""

    findings: list[FindingResult]
    macro: Interval | None
    macro_replicates: np.ndarray | None
    rule: Rule = RULES[DEFAULT]

    @property
    def scored(self) -> list[FindingResult]:
        """The findings that have a score."""
        return [f for f in self.findings if f.auroc]

    @property
    def macro_auprc(self) -> Interval | None:
        """The mean area under the precision-recall curve of the findings of `macro`."""
        values = [f.auprc_replicates for f in self.scored if not f.joint]
        return summarise(average(values)) if values else None

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "rule": self.rule.says,
            "rule_name": self.rule.name,
            "macro_auroc": self.macro.as_dict() if self.macro else None,
            "macro_auprc": self.macro_auprc.as_dict() if self.macro_auprc else None,
            "findings": {f.name: _finding_dict(f) for f in self.findings if not f.joint},
            "joint_findings": {f.name: _finding_dict(f) for f in self.findings if f.joint},
            "skipped": {f.name: f.skipped for f in self.findings if f.skipped},
        }


def _finding_dict(f: FindingResult) -> dict:
    return {
        "auroc": f.auroc.as_dict() if f.auroc else None,
        "auprc": f.auprc.as_dict() if f.auprc else None,
        "positives": f.positives,
        "negatives": f.negatives,
        "by_modality": {m: i.as_dict() for m, i in f.by_modality.items()},
    }


def zero_shot(
    table: EmbeddingTable,
    prompts: Prompts,
    findings: Mapping[str, Finding],
    scorer,
    replicates: int = REPLICATES,
    rule: Rule = RULES[DEFAULT],
) -> ZeroShot:
    """AUROC of every finding from all modalities but text, and from each of them alone.

    prompts: `{finding: (positive float32[p, E], negative float32[q, E])}`. scorer: see `Method.scorer`. A study counts
    for a finding if its label is known and the modalities that show it are present (any, if unknown). A finding is
    skipped, and says why, where no study or no counterexample has it, a modality that shows it is not embedded, or the
    rule wants negative prompts and it has none.
    """
    queries = [m for m in table.embeddings if m != "text"]
    together = pair_scores(table, queries, prompts, scorer, rule)
    alone = {m: pair_scores(table, [m], prompts, scorer, rule) for m in queries}
    weights = patient_weights(table.patients, replicates)
    results = []
    for name in prompts:
        counted, skipped = count(table, name, findings[name], queries)
        if rule.needs_negative and not len(prompts[name][1]):
            skipped = f"rule {rule.name} compares with prompts for absence, and it has none"
        scores = {m: s[name] for m, s in alone.items()}
        results.append(_one(table, name, findings[name].joint, together[name], counted, skipped, scores, weights))
    values = [f.replicates for f in results if f.replicates is not None and not f.joint]
    if not values:
        return ZeroShot(results, None, None, rule)
    macro = average(values)
    return ZeroShot(results, summarise(macro), macro, rule)


def pair_scores(
    table: EmbeddingTable, queries: Sequence[str], prompts: Prompts, scorer, rule: Rule
) -> dict[str, np.ndarray]:
    """`{finding: float64[n]}` from these modalities, by the rule."""
    sets = [s for pair in prompts.values() for s in pair]
    embeddings, present = ({m: of[m] for m in queries} for of in (table.embeddings, table.present))
    if not sets:
        return {}
    found = rule.set_scores(embeddings, present, sets, scorer)
    return {k: rule.pair(found[:, 2 * i], found[:, 2 * i + 1]) for i, k in enumerate(prompts)}


def count(table: EmbeddingTable, name: str, finding: Finding, queries: Sequence[str]) -> tuple[np.ndarray, str]:
    """The examples bool[n] on which a finding can be scored from these modalities, and why it cannot be, or ""."""
    labels = table.labels[:, table.label_names.index(name)]
    lacking = [m for m in finding.seen_in if m not in queries]
    shown = [m for m in finding.seen_in if m in queries]
    there = table.all_present(shown) if shown else np.any([table.present[m] for m in queries], axis=0)
    counted = there & ~np.isnan(labels)
    if lacking:
        return counted, f"it shows in {' and '.join(lacking)}, which is not among the modalities scored"
    for value, what in ((1, "positive"), (0, "negative")):
        if not (labels[counted] == value).any():
            return counted, f"no {what} example in the split"
    return counted, ""


def _one(
    table: EmbeddingTable,
    name: str,
    joint: bool,
    scores: np.ndarray,
    counted: np.ndarray,
    skipped: str,
    alone: Mapping[str, np.ndarray],
    weights: np.ndarray,
) -> FindingResult:
    labels = table.labels[:, table.label_names.index(name)]
    positives, negatives = int((labels[counted] == 1).sum()), int((labels[counted] == 0).sum())
    if skipped:
        return FindingResult(name, joint, positives, negatives, scores, counted, None, None, {}, skipped)
    truth = labels[counted] == 1
    roc = metrics.auroc(scores[counted], truth, weights[:, counted])
    pr = metrics.average_precision(scores[counted], truth, weights[:, counted])
    by_modality = {}
    for m, s in alone.items():
        some = counted & table.present[m]
        if len(np.unique(labels[some])) == 2:
            by_modality[m] = summarise(metrics.auroc(s[some], labels[some] == 1, weights[:, some]))
    return FindingResult(
        name,
        joint,
        positives,
        negatives,
        scores,
        counted,
        summarise(roc),
        roc,
        by_modality,
        auprc=summarise(pr),
        auprc_replicates=pr,
    )
