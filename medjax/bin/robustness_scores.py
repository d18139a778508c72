"""Which scores `medjax.bin.evaluate_robustness` takes of a subject, ready to be taken again on damaged tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from medjax.bin.evaluation import Subject
from medjax.errors import UserError
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.robustness_scores import (
    Judge,
    Score,
    class_score,
    joint_score,
    labels_of,
    probe_judge,
    retrieval_score,
    seen,
    zero_shot_judge,
)

KINDS = ("zero_shot", "probe", "retrieval")


def limited(table: EmbeddingTable, patients: int) -> EmbeddingTable:
    """The examples of the first so many patients, in the order of the split; all for 0."""
    if not patients:
        return table
    first = list(dict.fromkeys(table.patients.tolist()))[:patients]
    part = table.where(np.isin(table.patients, first))
    return replace(part, patients=np.unique(part.patients, return_inverse=True)[1].reshape(-1))


@dataclass(frozen=True)
class Scores:
    """Makes the scores of one subject. table: of the scored split, or some of it. wanted: of `KINDS`."""

    subject: Subject
    table: EmbeddingTable
    wanted: tuple[str, ...]
    _cache: dict[Any, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The modalities that findings are asked of: all but text."""
        return tuple(m for m in self.subject.modalities if m != "text")

    def of_corruption(self, modality: str) -> dict[str, Score]:
        """Those that corruptions of a modality are scored by: from it alone, and from all inputs together."""
        if modality == "text":
            others = [m for m in self.subject.modalities if m != "text"]
            found = {"retrieval": retrieval_score("by the text", self.table, "text", others)} if others else {}
            return {k: s for k, s in found.items() if s}
        out = {}
        for kind in self.wanted:
            if kind == "retrieval":
                out["retrieval"] = self._to_text(modality)
                continue
            out[f"{kind}_alone"] = self.classes(kind, (modality,), self.table)
            if len(self.inputs) > 1:
                out[f"{kind}_together"] = self.classes(kind, self.inputs, self.table)
        return {k: s for k, s in out.items() if s}

    def of_missing(self, complete: EmbeddingTable) -> dict[str, Score]:
        """Those that missing modalities are scored by, on examples that have all of them."""
        out = {k: self.classes(k, self.inputs, complete) for k in self.wanted if k != "retrieval"}
        scorer = self.subject.scorer()
        if "text" in self.subject.modalities and scorer is not None:
            out["joint_retrieval"] = joint_score("report by all inputs", complete, "text", self.inputs, scorer)
        return {k: s for k, s in out.items() if s}

    def classes(self, kind: str, modalities: tuple[str, ...], table: EmbeddingTable) -> Score | None:
        """Zero-shot or probe from these modalities."""
        findings = self.subject.findings
        labels = labels_of(self.subject.labels, findings, modalities)
        if kind == "zero_shot":
            labels = tuple(k for k in labels if k in findings)
        if not labels:
            return None
        counted = partial(seen, findings, modalities)
        name = f"{kind.replace('_', '-')} from {' + '.join(modalities)}"
        return class_score(name, self._judge(kind, labels, modalities), labels, table, self.validation, counted)

    def _judge(self, kind: str, labels: Sequence[str], modalities: tuple[str, ...]) -> Judge:
        key = kind, modalities
        if key not in self._cache:
            if kind == "zero_shot":
                findings = {k: self.subject.findings[k] for k in labels}
                prompts = self.subject.prompts(findings)
                self._cache[key] = zero_shot_judge(prompts, findings, self.subject.scorer(), modalities)
            else:
                train, validation = self.subject.table("train"), self.subject.table("validation")
                self._cache[key] = probe_judge(train, validation, labels, modalities)
        return self._cache[key]

    def _to_text(self, modality: str) -> Score | None:
        others = [m for m in self.subject.modalities if m != modality]
        targets = ["text"] if "text" in others else others
        return retrieval_score(f"by the {modality}", self.table, modality, targets) if targets else None

    @property
    def validation(self) -> EmbeddingTable | None:
        """The split that thresholds are chosen on; None where it is the one that is scored, or is not there."""
        if "validation" not in self._cache:
            self._cache["validation"] = None
            if self.subject.split != "validation" and has_split(self.subject, "validation"):
                self._cache["validation"] = self.subject.table("validation")
        return self._cache["validation"]


def has_split(subject: Subject, split: str) -> bool:
    """Whether the subject's data have examples of a split."""
    if subject.dataset is not None:
        found = subject.dataset.manifest.splits.get(split)
        return found is not None and found.examples > 0
    try:
        return len(subject.table(split)) > 0
    except UserError:
        return False


def possible(subject: Subject) -> tuple[str, ...]:
    """The scores that can be taken of a subject, the usual one first."""
    out, scorer = [], subject.scorer()
    inputs = [m for m in subject.modalities if m != "text"]
    if subject.findings and "text" in subject.modalities and inputs and scorer is not None:
        out.append("zero_shot")
    fitted = subject.split == "test" and all(has_split(subject, k) for k in ("train", "validation"))
    if subject.labels and inputs and fitted:
        out.append("probe")
    if len(subject.modalities) > 1 and scorer is not None:
        out.append("retrieval")
    return tuple(out)


def chosen(subject: Subject, asked: Sequence[str]) -> tuple[str, ...]:
    """What was asked for, or the first that is possible.

    Raises:
      UserError: nothing is possible, or not what was asked for, and what would be needed.
    """
    found = possible(subject)
    needs = {
        "zero_shot": "a data set with prompts and an encoder that was trained against text",
        "probe": "labels, --split=test, and train and validation splits",
        "retrieval": "an encoder that compares modalities",
    }
    for name in asked:
        if name not in found:
            raise UserError(f"--scores={name} needs {needs[name]}; possible here: {', '.join(found) or 'none'}")
    if not found:
        raise UserError("nothing can be scored: the data have neither labels nor two modalities that are compared")
    return tuple(asked) or found[:1]
