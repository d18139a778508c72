"""Findings by prompts, without fitting anything: python -m medjax.bin.evaluate_zero_shot --workdir=RUN.

Every finding is scored by how much better a study fits the prompts for its presence than those for its absence, from
all modalities but text together and from each alone; against chance, against the encoder before training, and against
a linear probe that is given the training labels.
"""

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject, load_subject
from medjax.data.manifest import Finding
from medjax.data.sources.table import read_prompts
from medjax.errors import UserError
from medjax.evaluation import metrics, plots
from medjax.evaluation.bootstrap import Interval, summarise, verdict
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.page import Page
from medjax.evaluation.probe import ProbeResult, joined_features, linear_probe
from medjax.evaluation.zero_shot import ZeroShot, zero_shot

_PROMPTS = flags.DEFINE_string(
    "prompts", "", 'JSON {label: {"positive": [...], "negative": [...]}}; default: the data set\'s.'
)
_PROBE = flags.DEFINE_bool("probe", True, "On the test split, also fit the linear probe.")


def main() -> None:
    """Evaluates, prints a table, writes results.json and report.html."""
    subject = load_subject("zero_shot")
    findings = read_prompts(_PROMPTS.value, subject.labels) if _PROMPTS.value else subject.findings
    if not findings:
        raise UserError(f"data set {subject.data['name']!r} has no prompts; pass --prompts=FILE.json")
    if "text" not in subject.modalities or subject.scorer() is None:
        raise UserError("this encoder was not trained against text and cannot be prompted; use evaluate_probe")
    table = subject.table()
    result = zero_shot(table, subject.prompts(findings), findings, subject.scorer())
    untrained = subject.untrained()
    control = None
    if untrained:
        control = zero_shot(untrained.table(), untrained.prompts(findings), findings, untrained.scorer())
    probe = _probe(subject, table) if _PROBE.value and subject.split == "test" else None
    _publish(subject, table, findings, result, control, probe)


def _probe(subject: Subject, test: EmbeddingTable) -> ProbeResult:
    tables = {"train": subject.table("train"), "validation": subject.table("validation"), "test": test}
    inputs = [m for m in subject.modalities if m != "text"]
    return linear_probe({k: joined_features(t, inputs) for k, t in tables.items()}, test.label_names)


def _publish(
    subject: Subject,
    table: EmbeddingTable,
    findings: dict[str, Finding],
    result: ZeroShot,
    control: ZeroShot | None,
    probe: ProbeResult | None,
) -> None:
    gain = None
    if control and result.macro_replicates is not None and control.macro_replicates is not None:
        gain = summarise(result.macro_replicates - control.macro_replicates)
    about = subject.about(table)
    results = {
        **about,
        "prompts": {k: {"positive": list(f.positive), "negative": list(f.negative)} for k, f in findings.items()},
        "zero_shot": result.as_dict(),
        "controls": {
            "chance": {"macro_auroc": 0.5},
            "untrained": control.as_dict() if control else None,
            "linear_probe": probe.as_dict() if probe else None,
        },
        "gain_over_untrained": {"macro_auroc": gain.as_dict(), "verdict": verdict(gain)} if gain else None,
    }
    rows = _rows(result, control, probe)
    header = ("finding", "positives", "zero-shot AUROC", "untrained", "linear probe")
    cli.print_table(header, rows)
    if gain:
        print(f"gain over the untrained encoder: {gain}: {verdict(gain)}")
    page = subject.page("Zero-shot findings", about)
    _fill(page, subject, table, findings, result, gain, header, rows)
    subject.save(results, page)


def _rows(result: ZeroShot, control: ZeroShot | None, probe: ProbeResult | None) -> list[tuple]:
    before = {f.name: f.auroc for f in control.findings} if control else {}
    rows = []
    for f in result.findings:
        name = f"{f.name} (joint)" if f.joint else f.name
        supervised = probe.auroc.get(f.name, "-") if probe else "-"
        rows.append(
            (
                name,
                f"{f.positives} of {f.positives + f.negatives}",
                f.auroc or f.skipped,
                before.get(f.name) or "-",
                supervised,
            )
        )
    if result.macro:
        macro = control.macro if control else "-"
        rows.append(("macro, without joint", "", result.macro, macro, _probe_macro(result, probe)))
    return rows


def _probe_macro(result: ZeroShot, probe: ProbeResult | None) -> Interval | str:
    """The probe's mean over the findings that are in the macro average of zero-shot."""
    names = [f.name for f in result.findings if f.auroc and not f.joint]
    if probe is None or any(n not in probe.replicates for n in names):
        return "-"
    return summarise(sum(probe.replicates[n] for n in names) / len(names))


def _fill(page: Page, subject: Subject, table, findings, result: ZeroShot, gain, header, rows) -> None:
    page.text(
        "Each finding is scored by the difference of the mean logits of its positive and negative prompts; nothing is "
        "fitted. The untrained encoder has the same architecture and its initial parameters; the linear probe is a "
        "logistic regression on the frozen embeddings that was given the labels of the training split."
    )
    if subject.data["texts_from_labels"]:
        page.note("The texts of this data set were made from its labels, so training on them has seen the labels.")
    if subject.encoder and "auroc" in subject.encoder.config.get("train", {}).get("best_metric", ""):
        page.note("The checkpoint was chosen by AUROC on the validation split, whose labels were used for that.")
    page.table(header, rows)
    if gain:
        page.text(f"Macro AUROC above that of the untrained encoder, paired over patients: {gain}: {verdict(gain)}.")
    scored = [f for f in result.findings if f.auroc]
    curves = []
    for f in scored:
        labels = table.labels[f.counted, table.label_names.index(f.name)] == 1
        curves.append((f.name, *metrics.roc_curve(f.scores[f.counted], labels), f.auroc))
    if curves:
        page.figure(plots.roc_curves(curves), "ROC curves")
    for name, why in {f.name: f.skipped for f in result.findings if f.skipped}.items():
        page.note(f"{name} is not scored: {why}.")
    page.heading("From one modality alone", 3)
    modalities = [m for m in table.embeddings if m != "text"]
    page.table(("finding", *modalities), [(f.name, *(f.by_modality.get(m, "-") for m in modalities)) for f in scored])
    page.heading("Prompts", 3)
    page.table(
        ("finding", "present", "absent"),
        [(k, "; ".join(f.positive), "; ".join(f.negative)) for k, f in findings.items()],
    )


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
