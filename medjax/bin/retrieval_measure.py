"""All that evaluate_retrieval measures of one table of embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass

from medjax.bin.evaluation import Subject
from medjax.errors import UserError
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.joint import Scorer, SubsetResult, subset_retrieval
from medjax.evaluation.label_retrieval import LabelRetrieval, label_retrieval
from medjax.evaluation.retrieval import (
    RetrievalResult,
    StatementRetrieval,
    joint_retrieval,
    pairwise_retrieval,
    statement_retrieval,
)


@dataclass(frozen=True)
class Retrieved:
    """Everything that is measured of one encoder, by name. unasked: why joint findings have no statements, or ""."""

    pairwise: Mapping[str, RetrievalResult]
    joint: Mapping[str, RetrievalResult]
    subsets: Mapping[str, SubsetResult]
    labels: Mapping[str, LabelRetrieval]
    statements: Mapping[str, StatementRetrieval]
    unasked: str = ""

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "retrieval": {k: r.as_dict() for k, r in self.pairwise.items()},
            "joint_retrieval": {k: r.as_dict() for k, r in self.joint.items()},
            "joint_subsets": {k: r.as_dict() for k, r in self.subsets.items()},
            "label_retrieval": {k: r.as_dict() for k, r in self.labels.items()},
            "joint_findings": {k: s.as_dict() for k, s in self.statements.items()},
            "joint_findings_unasked": self.unasked,
        }


def measure(subject: Subject, table: EmbeddingTable, scorer: Scorer | None, keep_patient: bool, seed: int) -> Retrieved:
    """scorer: None where modalities cannot be compared, which leaves retrieval by label within each of them."""
    labels = {r.name: r for r in label_retrieval(table, scorer is not None, keep_patient)}
    if scorer is None:
        return Retrieved({}, {}, {}, labels, {})
    pairwise = {r.name: r for r in pairwise_retrieval(table)}
    joint = {}
    if len(table.embeddings) > 2:
        found = [joint_retrieval(table, target, scorer) for target in table.embeddings]
        joint = {r.name: r for r in found if r is not None}
    subsets = subset_retrieval(table, scorer, seed)
    try:
        statements, unasked = _statements(subject, table, scorer), ""
    except UserError as error:  # embeddings that came without prompts
        statements, unasked = {}, str(error)
    return Retrieved(pairwise, joint, subsets, labels, statements, unasked)


def _statements(subject: Subject, table: EmbeddingTable, scorer: Scorer) -> dict[str, StatementRetrieval]:
    """Of the joint findings whose modalities the encoder has."""
    findings = {k: f for k, f in subject.findings.items() if f.joint and set(f.seen_in) <= set(table.embeddings)}
    if not findings or "text" not in subject.modalities:
        return {}
    prompts = subject.prompts(findings)
    found = {k: statement_retrieval(table, k, f.seen_in, prompts[k], scorer) for k, f in findings.items()}
    return {k: s for k, s in found.items() if s is not None}
