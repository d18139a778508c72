"""Findings by prompts, without fitting anything: python -m medjax.bin.evaluate_zero_shot --workdir=RUN.

Every finding is scored by how much better a study fits the prompts for its presence than those for its absence, from
all modalities but text together and from each alone, by a published rule (--rule). Labels that exclude each other are
told apart (groups of --prompts). Beside each score: chance, the encoder before training, shuffled pairs, age, sex and
the like alone, the report itself, and a linear probe that is given the training labels. Thresholds and probabilities
are fitted on the validation split. Several data sets (--data=A,B) also get a table of all; --against=PLACE compares
with another run, export or table of embeddings, paired over patients.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject, load_subjects
from medjax.bin.zero_shot_measure import Measured, Question, measure
from medjax.bin.zero_shot_page import fill
from medjax.bin.zero_shot_tables import SUMMARY as SUMMARY_HEADER
from medjax.bin.zero_shot_tables import print_all, summary_row
from medjax.errors import UserError
from medjax.evaluation.bootstrap import verdict
from medjax.evaluation.page import Page
from medjax.evaluation.prompt_files import PromptSet, read_prompt_file
from medjax.evaluation.prompt_rules import DEFAULT, RULES, Rule

_PROMPTS = flags.DEFINE_string(
    "prompts",
    "",
    'JSON {label: {"positive": [...], "negative": [...]}}, or {"templates": ["a chest X-ray of {}"], "classes": '
    '{label: [name, ...]}, "negative_templates": [...], "groups": {name: [label, ...]}}; default: the data set\'s.',
)
_RULE = flags.DEFINE_enum("rule", DEFAULT, list(RULES), "; ".join(f"{r.name}: {r.says}" for r in RULES.values()) + ".")
_ZSCORE = flags.DEFINE_bool(
    "set_zscore", False, "gloria_max, gloria_mean: scores less their mean over the evaluated set, by their spread."
)
_MODALITY = flags.DEFINE_string("modality", "", "Query by this modality alone; default: all but text together.")
_SENSITIVITY = flags.DEFINE_float("sensitivity", 0.9, "Of the operating point at a fixed sensitivity.", 0.01, 1.0)
_LEAST = flags.DEFINE_integer(
    "subgroup_minimum", 10, "Positive and negative studies a subgroup needs to be scored.", lower_bound=1
)
_AGAINST = flags.DEFINE_string(
    "against", "", "Another run, export or embeddings, of the same examples, to compare with, paired over patients."
)
_PROBE = flags.DEFINE_bool("probe", True, "On the test split, also fit the linear probe and that of the attributes.")
_EXAMPLES = flags.DEFINE_bool("examples", True, "Show studies of each finding that were called right and wrong.")


def main() -> None:
    """Evaluates, prints tables, writes results.json and report.html of each data set."""
    subjects = load_subjects("zero_shot")
    names = [s.output.name for s in subjects]
    if len(set(names)) < len(names):
        raise UserError("--data names two folders of the same name, whose results would have one place; rename one")
    asked = [_question(subject, subjects) for subject in subjects]
    if not any(q.prompts.findings for q in asked):
        lacking = ", ".join(s.data["name"] for s in subjects)
        raise UserError(f"data set {lacking!r} has no prompts; pass --prompts=FILE.json")
    done = []
    for subject, question in zip(subjects, asked, strict=True):
        if not question.prompts.findings:
            print(f"{subject.data['name']} has none of the labels that are asked for, and is left out")
            continue
        if len(subjects) > 1:
            print(f"\n{subject.output.name}:")
        measured = measure(subject, question)
        if not measured.result.findings and not measured.groups:
            raise UserError(f"nothing of {subject.data['name']} can be scored")
        _publish(subject, measured)
        done.append((subject, measured))
    if len(subjects) > 1:
        _combine(done)


def _question(subject: Subject, subjects: Sequence[Subject]) -> Question:
    """What is asked of one data set: of a file of prompts, the labels that it has."""
    prompts = PromptSet(dict(subject.findings))
    if _PROMPTS.value:
        labels = list(dict.fromkeys(label for s in subjects for label in s.labels))
        prompts = read_prompt_file(_PROMPTS.value, labels, subject.findings).of(subject.labels)
    return Question(prompts, _rule(), _MODALITY.value, _SENSITIVITY.value, _LEAST.value, _PROBE.value, _AGAINST.value)


def _rule() -> Rule:
    rule = RULES[_RULE.value]
    if _ZSCORE.value and not rule.name.startswith("gloria"):
        raise UserError(f"--set_zscore goes with --rule=gloria_max or gloria_mean, not {rule.name}")
    return replace(rule, zscore=_ZSCORE.value, says=rule.says + ", standardised over the evaluated set" * _ZSCORE.value)


def _publish(subject: Subject, measured: Measured) -> None:
    about = subject.about(measured.table)
    gain = measured.gain
    digest = hashlib.sha256(json.dumps(measured.question.prompts.as_dict(), sort_keys=True).encode()).hexdigest()
    results = {
        **about,
        **measured.as_dict(),
        "prompts_sha256": digest,
        "gain_over_untrained": {"macro_auroc": gain.as_dict(), "verdict": verdict(gain)} if gain else None,
    }
    print_all(measured)
    page = subject.page("Zero-shot findings", about)
    fill(page, subject, measured, digest, _EXAMPLES.value)
    subject.save(results, page)


def _combine(done: Sequence[tuple[Subject, Measured]]) -> None:
    """A table of all data sets, printed, and as combined.json and combined.html above their folders."""
    rows = [summary_row(subject, measured) for subject, measured in done]
    print()
    cli.print_table(SUMMARY_HEADER, rows)
    folder: Path = done[0][0].output.parent
    combined = {
        subject.output.name: {
            "data": subject.data["name"],
            "macro_auroc": m.result.macro.as_dict() if m.result.macro else None,
            "gain_over_untrained": m.gain.as_dict() if m.gain else None,
            "classes": {g.name: g.as_dict() for g in m.groups},
        }
        for subject, m in done
    }
    (folder / "combined.json").write_text(json.dumps(combined, indent=1) + "\n")
    page = Page("Zero-shot findings of several data sets", f"{done[0][0].name}; {done[0][1].question.rule.says}")
    page.table(SUMMARY_HEADER, rows)
    for subject, _ in done:
        page.link(f"{subject.output.name}/report.html", f"{subject.output.name}: {subject.data['name']} in full")
    page.save(folder / "combined.html")
    print(f"all data sets: {folder / 'combined.json'}, {folder / 'combined.html'}")


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
