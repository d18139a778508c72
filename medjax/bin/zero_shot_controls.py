"""What a zero-shot score stands beside: the same without training, without pairs, without the study, with labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from medjax.bin.evaluation import Subject
from medjax.data.manifest import Finding
from medjax.errors import UserError
from medjax.evaluation.bootstrap import Interval, average, summarise
from medjax.evaluation.controls import attribute_probe, shuffled
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import ProbeResult, joined_features, linear_probe
from medjax.evaluation.prompt_rules import RULES, Rule
from medjax.evaluation.robustness_scores import restricted
from medjax.evaluation.zero_shot import Prompts, ZeroShot, zero_shot

SAYS = {
    "untrained": "the same architecture with its initial parameters",
    "shuffled": "the embeddings dealt out anew among the studies",
    "attributes": "a logistic regression on age, sex and the like, and on which modalities are there, alone",
    "text_only": "the prompts against the study's own report, which says what was found",
    "linear_probe": "a logistic regression on the frozen embeddings, fitted to the labels of the training split",
}


@dataclass(frozen=True)
class Controls:
    """scores: `{control: its result}`; those that could not be had are in `lacking`, with why."""

    scores: dict[str, ZeroShot | ProbeResult]
    lacking: dict[str, str]

    def of(self, control: str, finding: str) -> Interval | None:
        """A control's AUROC of a finding."""
        found = self.scores.get(control)
        if isinstance(found, ProbeResult):
            return found.auroc.get(finding)
        return next((f.auroc for f in found.findings if f.name == finding), None) if found else None

    def macro(self, control: str, findings: list[str]) -> Interval | None:
        """A control's mean over these findings, if it has all of them."""
        found = self.scores.get(control)
        if isinstance(found, ProbeResult):
            replicates = found.replicates
        else:
            replicates = {f.name: f.replicates for f in found.scored} if found else {}
        if not findings or any(k not in replicates for k in findings):
            return None
        return summarise(average([replicates[k] for k in findings]))

    def as_dict(self) -> dict:
        """For results.json."""
        shown = {k: self.scores[k].as_dict() if k in self.scores else None for k in SAYS}
        return {"chance": {"macro_auroc": 0.5}, **shown}


def controls(
    subject: Subject,
    table: EmbeddingTable,
    prompts: Prompts,
    untrained: tuple[EmbeddingTable, Prompts, object] | None,
    findings: Mapping[str, Finding],
    rule: Rule,
    probes: bool,
) -> Controls:
    """table: of the split that is scored. untrained: table, prompts and scorer before training. probes: whether to fit
    those that need the training split."""
    queries = [m for m in table.embeddings if m != "text"]
    scores: dict[str, ZeroShot | ProbeResult] = {}
    lacking: dict[str, str] = {}
    if untrained:
        scores["untrained"] = zero_shot(untrained[0], untrained[1], findings, untrained[2], rule=rule)
    else:
        lacking["untrained"] = "there are embeddings alone, and no encoder"
    scores["shuffled"] = zero_shot(shuffled(table), prompts, findings, subject.scorer(), rule=rule)
    reports = text_only(table, prompts, findings, rule)
    if reports.scored:
        scores["text_only"] = reports
    else:
        lacking["text_only"] = "no study has a report"
    if not probes or subject.split != "test":
        why = "fitted for the test split alone" if probes else "--probe=False"
        return Controls(scores, lacking | dict.fromkeys(("attributes", "linear_probe"), why))
    try:
        tables = {k: subject.table(k) for k in ("train", "validation")} | {"test": table}
    except UserError as error:
        return Controls(scores, lacking | dict.fromkeys(("attributes", "linear_probe"), str(error)))
    features = {k: joined_features(t, queries) for k, t in tables.items()}
    scores["linear_probe"] = linear_probe(features, table.label_names)
    if table.attributes:
        scores["attributes"] = attribute_probe(tables, table.label_names, subject.attributes, queries)
    else:
        lacking["attributes"] = "the data set has none"
    return Controls(scores, lacking)


def text_only(table: EmbeddingTable, prompts: Prompts, findings: Mapping[str, Finding], rule: Rule) -> ZeroShot:
    """The report's own embedding in place of the study's, by cosine: by the rule, or for one that needs the model's
    scorer by the difference of cosines. Every study with a report counts."""
    by = rule if rule.by and not rule.scaled else RULES["biovil"]
    present = table.present.get("text", np.zeros(len(table), bool))
    report = restricted(table, [m for m in table.embeddings if m == "text"])
    report = replace(report, embeddings={"report": report.embeddings["text"]}, present={"report": present})
    anywhere = {k: replace(f, seen_in=()) for k, f in findings.items()}
    return zero_shot(report, prompts, anywhere, None, rule=by)
