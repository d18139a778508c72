"""The page of evaluate_zero_shot: what was asked, on whom, how sure, and studies called right and wrong."""

import numpy as np

from medjax.bin import zero_shot_tables as tables
from medjax.bin.evaluation import Subject
from medjax.bin.zero_shot_controls import SAYS
from medjax.bin.zero_shot_measure import Measured
from medjax.evaluation import metrics, plots
from medjax.evaluation.bootstrap import verdict
from medjax.evaluation.calibration import BINNING, reliability
from medjax.evaluation.page import Page
from medjax.evaluation.thumbnails import thumbnail
from medjax.evaluation.zero_shot import FindingResult


def fill(page: Page, subject: Subject, measured: Measured, digest: str, examples: bool) -> None:
    """Writes everything below the head. digest: of the prompts."""
    _summary(page, subject, measured)
    _asked(page, measured, digest)
    _findings(page, measured)
    _classes(page, measured)
    _points(page, measured)
    _calibration(page, measured)
    _subgroups(page, measured)
    if measured.comparison:
        page.heading("Against another model")
        page.text(
            f"The other is {measured.question.against}. Both are scored on the same studies, and each replicate of the "
            "bootstrap draws the same patients for both; a difference whose interval holds 0 is not resolvable."
        )
        page.table(*tables.comparison_table(measured))
        for name, why in measured.comparison.skipped.items():
            page.note(f"{name} is not compared: {why}.")
    if examples:
        _examples(page, subject, measured)
    if missing := {**measured.lacking, **measured.controls.lacking}:
        page.heading("Not measured")
        page.table(("what", "why"), [(k.replace("_", " "), v) for k, v in missing.items()])


def _summary(page: Page, subject: Subject, measured: Measured) -> None:
    result = measured.result
    if result.macro:
        page.text(
            f"Mean AUROC of {sum(not f.joint for f in result.scored)} findings: {result.macro}. An AUROC is the "
            "probability that a study with the finding scores above one without; 0.5 is chance. In brackets: where 95 "
            "% of the values lie when patients are drawn anew."
        )
    if gain := measured.gain:
        page.text(f"Above the encoder before training, paired over patients: {gain}: {verdict(gain)}.")
    if subject.data["texts_from_labels"]:
        page.note("The texts of this data set were made from its labels, so training on them has seen the labels.")
    if subject.encoder and "auroc" in subject.encoder.config.get("train", {}).get("best_metric", ""):
        page.note("The checkpoint was chosen by AUROC on the validation split, whose labels were used for that.")


def _asked(page: Page, measured: Measured, digest: str) -> None:
    q = measured.question
    page.heading("What was asked")
    source = f" ({q.rule.source})" if q.rule.source else ""
    page.text(
        f"Rule {q.rule.name}{source}: {q.rule.says}. The study is embedded from {' + '.join(measured.queries)}, never "
        f"from its report. Nothing is fitted to make the score. SHA-256 of the prompts: {digest[:16]}."
    )
    if q.rule.zscore:
        page.note("Scores are standardised over the evaluated set: a study's score depends on which others are in it.")
    rows = [
        (k, "; ".join(f.positive), "; ".join(f.negative) if q.rule.needs_negative else f"not used by {q.rule.name}")
        for k, f in q.prompts.findings.items()
    ]
    page.table(("finding", "words for its presence", "words for its absence"), rows)
    for name, members in q.prompts.groups.items():
        page.text(f"{name}, one of: {', '.join(members)}, by the words for their presence.")


def _findings(page: Page, measured: Measured) -> None:
    result = measured.result
    if not result.findings:
        return
    page.heading("Findings")
    page.table(*tables.findings_table(measured))
    page.heading("Beside its controls", 3)
    lacking = measured.controls.lacking
    page.table(("control", "what it is"), [(k.replace("_", " "), v) for k, v in SAYS.items() if k not in lacking])
    page.table(*tables.controls_table(measured))
    curves = [(f.name, *metrics.roc_curve(f.scores[f.counted], measured.truth(f)), f.auroc) for f in result.scored]
    if curves:
        page.figure(plots.roc_curves(curves), "ROC curves with AUROC; the dotted line is chance")
    if len(measured.queries) > 1:
        page.heading("From one modality alone", 3)
        page.text("AUROC where that modality is there; '-' where it leaves one class only.")
        rows = [(f.name, *(f.by_modality.get(m, "-") for m in measured.queries)) for f in result.scored]
        page.table(("finding", *measured.queries), rows)


def _classes(page: Page, measured: Measured) -> None:
    if not measured.groups:
        return
    page.heading("Classes that exclude each other")
    page.table(*tables.classes_table(measured))
    for g in measured.groups:
        page.heading(g.name, 3)
        page.text(f"{g.left_out} studies are left out: not exactly one of the classes is known to be true of them.")
        if gain := measured.group_gains.get(g.name):
            page.text(f"Balanced accuracy above the encoder before training: {gain}: {verdict(gain)}.")
        if g.ece:
            page.text(
                f"Expected calibration error of the called class at the temperature {g.temperature:.3g} that "
                f"validation gave: {g.ece} ({BINNING})."
            )
        if not g.skipped:
            rows = [(c, *row.astype(int)) for c, row in zip(g.classes, g.confusion, strict=True)]
            page.table(("truly, called", *g.classes), rows)


def _points(page: Page, measured: Measured) -> None:
    if not measured.points:
        return
    page.heading("Operating points")
    page.text(
        "Thresholds were chosen on the validation split alone: where sensitivity + specificity is largest (Youden), "
        f"where F1 is, and the highest that finds {measured.question.sensitivity:.0%} of the positive studies there. "
        "The rates are those of the evaluated split at these thresholds; PPV and NPV hold for its prevalence."
    )
    page.table(*tables.points_table(measured))


def _calibration(page: Page, measured: Measured) -> None:
    if not any(measured.calibration.values()):
        return
    page.heading("Do the scores read as probabilities?")
    page.text(
        "Among studies that are given a probability of 0.7, 70 % should have the finding. The expected calibration "
        f"error (ECE) is the mean distance from that, over {BINNING}; it is above 0 by chance in small sets. "
        "Temperature and Platt scaling were fitted on the validation split alone."
    )
    curves = []
    for f in measured.result.scored:
        ways = measured.calibration[f.name]
        if ways:
            truth = measured.truth(f)
            curves.append((f.name, {how: reliability(c.probabilities, truth) for how, c in ways.items()}))
    page.figure(plots.reliability_curves(curves), "Reliability: share of positives by probability; dotted: right")
    page.table(*tables.calibration_table(measured))


def _subgroups(page: Page, measured: Measured) -> None:
    if not measured.subgroups:
        return
    page.heading("Subgroups")
    page.text(
        "AUROC within each group. The gap is the largest less the smallest; it is never below 0, so set it against the "
        "gap by chance, which groups have that are dealt out anew among the patients. Groups with fewer than "
        f"{measured.question.least} positive or negative studies are not scored. The macro row is the mean of findings "
        "that every group has enough of."
    )
    for s in measured.subgroups:
        page.heading(s.attribute, 3)
        page.table(*tables.subgroup_table(s))
        rows = [(f, group, why) for f, of in s.skipped.items() for group, why in of.items()]
        if rows:
            page.table(("not scored", "group", "why"), rows)


def _examples(page: Page, subject: Subject, measured: Measured) -> None:
    page.heading("Studies called right and wrong")
    if subject.dataset is None:
        page.text("Not shown: there are embeddings alone, and no data set.")
        return
    if subject.data["sensitive"]:
        page.text("Not shown: the data set is marked sensitive.")
        return
    page.text(
        "Of each finding the highest and the lowest score with it and without it. A green frame: the threshold that "
        "validation chose (Youden) calls the study right. The picture is of the first modality that shows the finding."
    )
    for f in measured.result.scored:
        shown = measured.question.prompts.findings[f.name].seen_in or measured.queries
        page.heading(f.name, 3)
        page.cards([_card(subject, measured, f, i, what, shown[0]) for what, i in _extremes(measured, f)])


def _extremes(measured: Measured, f: FindingResult) -> list[tuple[str, int]]:
    """(what, position in the table) of the four studies."""
    where, truth = np.flatnonzero(f.counted), measured.truth(f)
    has, has_not = where[truth], where[~truth]
    return [
        ("has it, highest score", int(has[np.argmax(f.scores[has])])),
        ("has it, lowest score", int(has[np.argmin(f.scores[has])])),
        ("has it not, highest score", int(has_not[np.argmax(f.scores[has_not])])),
        ("has it not, lowest score", int(has_not[np.argmin(f.scores[has_not])])),
    ]


def _card(subject: Subject, measured: Measured, f: FindingResult, i: int, what: str, modality: str) -> tuple[str, str]:
    above = int((f.scores[f.counted] > f.scores[i]).sum()) + 1
    text, frame = f"<b>{what}</b><br>score {f.scores[i]:.3g}, place {above} of {int(f.counted.sum())}", ""
    if f.name in measured.points:
        threshold = next(p.threshold for p in measured.points[f.name] if p.how == "youden")
        called = f.scores[i] >= threshold
        frame = "right" if called == what.startswith("has it,") else ""
        text += f"<br>called {'present' if called else 'absent'}: {'right' if frame else 'wrong'}"
    row = int(measured.table.rows[i])
    return frame, f"{text}<br>{thumbnail(subject.dataset, subject.split, row, modality)}"
