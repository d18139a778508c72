"""All that evaluate_zero_shot measures of one subject on one data set."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from medjax.bin.evaluation import Subject
from medjax.bin.places import open_place
from medjax.bin.zero_shot_controls import Controls, controls
from medjax.data.manifest import Finding
from medjax.errors import UserError, check_choice
from medjax.evaluation.bootstrap import Interval, patient_weights, summarise
from medjax.evaluation.calibration import BINNING, Calibrated, calibrate
from medjax.evaluation.compare import Comparison, compare, same_examples
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.operating_points import SAYS, OperatingPoint, operating_points
from medjax.evaluation.prompt_files import PromptSet
from medjax.evaluation.prompt_rules import Rule, check_prompts
from medjax.evaluation.robustness_scores import restricted
from medjax.evaluation.subgroups import Subgroups, subgroups
from medjax.evaluation.zero_shot import FindingResult, Prompts, ZeroShot, count, pair_scores, zero_shot
from medjax.evaluation.zero_shot_classes import GroupResult, classify


@dataclass(frozen=True)
class Question:
    """What is asked. prompts: of the data set. modality: the one to query by, or "" for all but text. sensitivity: of
    one operating point. least: positives and negatives that a subgroup needs. against: the place of another model."""

    prompts: PromptSet
    rule: Rule
    modality: str
    sensitivity: float
    least: int
    probes: bool
    against: str


@dataclass(frozen=True)
class Measured:
    """The answers. table: the embeddings that were scored. points, calibration: by finding. lacking: parts that could
    not be had, and why."""

    question: Question
    table: EmbeddingTable
    queries: tuple[str, ...]
    result: ZeroShot
    groups: list[GroupResult]
    group_gains: dict[str, Interval]
    controls: Controls
    gain: Interval | None
    points: dict[str, list[OperatingPoint]]
    calibration: dict[str, dict[str, Calibrated]]
    subgroups: list[Subgroups]
    comparison: Comparison | None
    lacking: dict[str, str]

    def truth(self, f: FindingResult) -> np.ndarray:
        """bool[k]: the labels of the examples that count for a finding."""
        return self.table.labels[f.counted, self.table.label_names.index(f.name)] == 1

    def as_dict(self) -> dict:
        """For results.json, below its head."""
        q = self.question
        return {
            "prompts": q.prompts.as_dict(),
            "groups": {k: list(v) for k, v in q.prompts.groups.items()},
            "rule": q.rule.as_dict(),
            "modalities": list(self.queries),
            "zero_shot": self.result.as_dict(),
            "classes": {g.name: g.as_dict() for g in self.groups},
            "operating_points": {
                "chosen_on": "validation",
                "ways": {**SAYS, "sensitivity": f"{SAYS['sensitivity']}, {q.sensitivity:g}"},
                "findings": {k: {p.how: p.as_dict() for p in points} for k, points in self.points.items()},
            },
            "calibration": {
                "fitted_on": "validation",
                "binning": BINNING,
                "findings": {k: {how: c.as_dict() for how, c in of.items()} for k, of in self.calibration.items()},
            },
            "subgroups": {s.attribute: s.as_dict() for s in self.subgroups},
            "controls": self.controls.as_dict(),
            "classes_gain_over_untrained": {k: v.as_dict() for k, v in self.group_gains.items()},
            "against": {"place": q.against, **self.comparison.as_dict()} if self.comparison else None,
            "not_measured": {**self.lacking, **self.controls.lacking},
        }


def measure(subject: Subject, question: Question) -> Measured:
    """Scores the subject's split.

    Raises:
      UserError: the subject or the other model cannot be asked this.
    """
    findings, rule = question.prompts.findings, question.rule
    check_prompts(rule, {k: f.positive for k, f in findings.items()})
    queries = queries_of(subject, question.modality)
    table = restricted(subject.table(), [*queries, "text"])
    prompts, scorer = embedded(subject, findings), subject.scorer()
    result = zero_shot(table, prompts, findings, scorer, rule=rule)
    comparison = _against(subject, question, result, table) if question.against else None
    lacking: dict[str, str] = {}
    validation = _validation(subject, table, lacking)
    points, calibration = _fitted(question, result, table, validation, prompts, scorer)
    before = subject.untrained()
    untrained = None
    if before:
        untrained = restricted(before.table(), [*queries, "text"]), embedded(before, findings), before.scorer()
    tables = {"test": table} | ({"validation": validation} if validation else {})
    groups = _groups(question, tables, prompts, scorer)
    compared = controls(subject, table, prompts, untrained, findings, rule, question.probes)
    return Measured(
        question,
        table,
        tuple(queries),
        result,
        groups,
        _group_gains(question, groups, untrained),
        compared,
        _gain(result, compared.scores.get("untrained")),
        points,
        calibration,
        subgroups(table, result, subject.attributes, patient_weights(table.patients), question.least),
        comparison,
        lacking,
    )


def queries_of(subject: Subject, modality: str) -> list[str]:
    """The modalities to query by.

    Raises:
      UserError: the subject has no text, or not this modality, or none but text.
    """
    if "text" not in subject.modalities or subject.scorer() is None:
        raise UserError("this encoder was not trained against text and cannot be prompted; use evaluate_probe")
    others = [m for m in subject.modalities if m != "text"]
    if modality:
        check_choice("modality", modality, others)
    return [modality] if modality else others


def embedded(subject: Subject, findings: Mapping[str, Finding]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`{finding: (positive float32[p, E], negative float32[q, E])}`, with q of 0 where there are no such prompts.

    Raises:
      UserError: stored embeddings hold the prompts in other words, or none.
    """
    if subject.encoder is None:
        other = [k for k, f in findings.items() if not _holds(subject.findings.get(k), f)]
        if other:
            raise UserError(
                f"{subject.name} holds no embeddings of these prompts for {', '.join(other)}; embed again with "
                "--prompts, or evaluate the run with --workdir"
            )
    found = subject.prompts({k: replace(f, negative=f.negative or f.positive) for k, f in findings.items()})
    return {k: (p, n if findings[k].negative else n[:0]) for k, (p, n) in found.items()}


def _holds(stored: Finding | None, asked: Finding) -> bool:
    same = stored is not None and stored.positive == asked.positive
    return same and (not asked.negative or stored.negative == asked.negative)


def _validation(subject: Subject, table: EmbeddingTable, lacking: dict[str, str]) -> EmbeddingTable | None:
    """The split that thresholds and probabilities are fitted on; where there is none, `lacking` says why."""
    why = "the validation split itself is scored, on which they would be chosen"
    if subject.split != "validation":
        try:
            return restricted(subject.table("validation"), list(table.embeddings))
        except UserError as error:
            why = str(error)
    lacking["operating points and calibration on validation"] = why
    return None


def _fitted(question: Question, result: ZeroShot, table: EmbeddingTable, validation, prompts: Prompts, scorer):
    """Operating points and calibration of every scored finding, `{finding: ...}` each."""
    rule, queries = question.rule, [m for m in table.embeddings if m != "text"]
    chosen = pair_scores(validation, queries, prompts, scorer, rule) if validation else {}
    weights = patient_weights(table.patients)
    points, calibration = {}, {}
    for f in result.scored:
        column = table.label_names.index(f.name)
        scores, truth = f.scores[f.counted], table.labels[f.counted, column] == 1
        fitted = None
        if validation:
            counted, skipped = count(validation, f.name, question.prompts.findings[f.name], queries)
            if not skipped:
                fitted = chosen[f.name][counted], validation.labels[counted, column] == 1
        own = weights[:, f.counted]
        if fitted:
            points[f.name] = operating_points(fitted, (scores, truth), own, question.sensitivity)
        margins = (rule.margin(fitted[0]), fitted[1]) if fitted else None
        calibration[f.name] = calibrate(margins, (rule.margin(scores), truth), own, rule.log_odds)
    return points, calibration


def _groups(question: Question, tables: dict[str, EmbeddingTable], prompts: Prompts, scorer) -> list[GroupResult]:
    groups = question.prompts.groups
    return [classify(k, g, tables, [prompts[c][0] for c in g], scorer, question.rule) for k, g in groups.items()]


def _group_gains(question: Question, groups: list[GroupResult], untrained) -> dict[str, Interval]:
    """Balanced accuracy above that of the untrained encoder, paired over patients."""
    if not untrained:
        return {}
    table, prompts, scorer = untrained
    before = {g.name: g for g in _groups(question, {"test": table}, prompts, scorer)}
    name = "balanced_accuracy"
    scored = [g for g in groups if not g.skipped]
    return {g.name: summarise(g.replicates[name] - before[g.name].replicates[name]) for g in scored}


def _gain(result: ZeroShot, before: ZeroShot | None) -> Interval | None:
    if not before or result.macro_replicates is None or before.macro_replicates is None:
        return None
    return summarise(result.macro_replicates - before.macro_replicates)


def _against(subject: Subject, question: Question, result: ZeroShot, table: EmbeddingTable) -> Comparison:
    other = open_place(question.against, subject)
    theirs = restricted(other.table(), [*queries_of(other, question.modality), "text"])
    if not same_examples(table, theirs):
        raise UserError(
            f"--against={question.against} has {len(theirs)} examples that are not the {len(table)} of this "
            f"{subject.split} split in the same order; a paired comparison needs the same list"
        )
    findings = question.prompts.findings
    if missing := [k for k in findings if k not in theirs.label_names]:
        raise UserError(f"--against={question.against} has no label {', '.join(missing)}; its data set is another")
    found = zero_shot(theirs, embedded(other, findings), findings, other.scorer(), replicates=0, rule=question.rule)
    return compare(result, found, table)
