"""The tables of evaluate_zero_shot, for the console and for the page."""

from collections.abc import Sequence

from medjax.bin import cli
from medjax.bin.evaluation import Subject
from medjax.bin.zero_shot_controls import SAYS
from medjax.bin.zero_shot_measure import Measured
from medjax.evaluation.bootstrap import Interval, verdict
from medjax.evaluation.subgroups import Subgroups

Rows = tuple[Sequence[str], list[tuple]]
SUMMARY = ("data set", "studies", "macro AUROC", "chance", "untrained", "linear probe", "gain over untrained")
_POINTS = ("sensitivity", "specificity", "ppv", "npv", "f1", "balanced_accuracy")


def findings_table(measured: Measured) -> Rows:
    """AUROC of every finding."""
    result = measured.result
    header = ("finding", "positives", "zero-shot AUROC", "AUPRC (prevalence)")
    rows = []
    for f in result.findings:
        name, total = f"{f.name} (joint)" if f.joint else f.name, f.positives + f.negatives
        pr = f"{f.auprc} ({f.positives / total:.2f})" if f.auprc else "-"
        rows.append((name, f"{f.positives} of {total}", f.auroc or f"not scored: {f.skipped}", pr))
    if result.macro:
        rows.append(("macro, without joint", "", result.macro, result.macro_auprc))
    return header, rows


def controls_table(measured: Measured, brief: bool = False) -> Rows:
    """AUROC beside those of the controls; brief: without their intervals."""
    result, beside = measured.result, measured.controls

    def show(found: Interval | None) -> str:
        return "-" if found is None else f"{found.value:.3f}" if brief else str(found)

    header = ("finding", "zero-shot", "chance", *(k.replace("_", " ") for k in SAYS))
    rows = []
    for f in result.scored:
        name = f"{f.name} (joint)" if f.joint else f.name
        rows.append((name, show(f.auroc), "0.5", *(show(beside.of(k, f.name)) for k in SAYS)))
    if result.macro:
        names = [f.name for f in result.scored if not f.joint]
        rows.append(("macro", show(result.macro), "0.5", *(show(beside.macro(k, names)) for k in SAYS)))
    return header, rows


def classes_table(measured: Measured) -> Rows:
    """Labels that exclude each other."""
    header = ("group", "studies", "accuracy", "balanced accuracy", "macro F1", "MCC", "chance", "always the commonest")
    rows = []
    for g in measured.groups:
        if g.skipped:
            rows.append((g.name, sum(g.counts.values()), f"not scored: {g.skipped}", *["-"] * 5))
            continue
        scores = (g.scores[k] for k in ("accuracy", "balanced_accuracy", "macro_f1", "mcc"))
        chance = f"{g.chance['accuracy']:.3f}"
        rows.append((g.name, sum(g.counts.values()), *scores, chance, f"{g.frequent['accuracy']:.3f} accuracy"))
    return header, rows


def points_table(measured: Measured) -> Rows:
    """Rates at the thresholds that validation chose."""
    header = ("finding", "threshold for", "threshold", *(k.replace("_", " ") for k in _POINTS))
    ways = {"youden": "Youden", "max_f1": "F1", "sensitivity": f"sensitivity {measured.question.sensitivity:g}"}
    return header, [
        (name, ways[p.how], f"{p.threshold:.4g}", *(p.rates[k] for k in _POINTS))
        for name, points in measured.points.items()
        for p in points
    ]


def calibration_table(measured: Measured) -> Rows:
    """Expected calibration error and Brier score of each way to make a probability."""
    header = ("finding", "probability", "ECE", "Brier score", "fitted on validation")
    ways = {"raw": "the score as it is", "temperature": "temperature scaling", "platt": "Platt scaling"}
    return header, [
        (name, ways[how], c.ece, c.brier, ", ".join(f"{k} {v:.3g}" for k, v in c.fitted.items()) or "nothing")
        for name, of in measured.calibration.items()
        for how, c in of.items()
    ]


def subgroup_table(s: Subgroups) -> Rows:
    """AUROC of each group, and the gap between them."""
    groups = list(s.examples)
    header = ("finding", *(f"{g} ({n} studies)" for g, n in s.examples.items()), "gap", "gap by chance")
    rows = []
    for name, values in s.auroc.items():
        gap = s.gaps.get(name)
        cells = [values.get(g, "too few") for g in groups]
        rows.append((name, *cells, *((gap.interval, f"{gap.by_chance:.3f}") if gap else ("-", "-"))))
    return header, rows


def comparison_table(measured: Measured) -> Rows:
    """This model and the other."""
    found = measured.comparison
    every = {**found.findings, **({"macro": found.macro} if found.macro else {})}
    header = ("finding", "studies", "this model", "the other", "difference", "")
    return header, [(k, d.examples, d.own, d.other, d.gain, d.verdict) for k, d in every.items()]


def summary_row(subject: Subject, measured: Measured) -> tuple:
    """One data set in the table of all; see `SUMMARY`."""
    names = [f.name for f in measured.result.scored if not f.joint]
    beside = [measured.controls.macro(k, names) or "-" for k in ("untrained", "linear_probe")]
    gain = f"{measured.gain}: {verdict(measured.gain)}" if measured.gain else "-"
    return (subject.output.name, len(measured.table), measured.result.macro or "-", "0.5", *beside, gain)


def print_all(measured: Measured) -> None:
    """What belongs on the console."""
    rule, result = measured.question.rule, measured.result
    print(f"rule {rule.name}: {rule.says}; by {' + '.join(measured.queries)}")
    if rule.zscore:
        print("scores are standardised over the evaluated set: they depend on which studies are in it")
    if result.findings:
        cli.print_table(*findings_table(measured))
    if result.scored:
        print("\nbeside controls (AUROC):")
        cli.print_table(*controls_table(measured, brief=True))
    if measured.gain:
        print(f"gain over the untrained encoder: {measured.gain}: {verdict(measured.gain)}")
    if measured.groups:
        print("\nclasses that exclude each other:")
        cli.print_table(*classes_table(measured))
        for name, gain in measured.group_gains.items():
            print(f"{name}: balanced accuracy above the untrained encoder: {gain}: {verdict(gain)}")
    for s in measured.subgroups:
        if gap := s.gaps.get("macro"):
            print(f"gap between groups of {s.attribute}, macro AUROC: {gap.interval}, by chance {gap.by_chance:.3f}")
    if measured.comparison:
        print(f"\nagainst {measured.question.against}, paired over patients:")
        cli.print_table(*comparison_table(measured))
    for what, why in {**measured.lacking, **measured.controls.lacking}.items():
        print(f"not measured: {what.replace('_', ' ')}: {why}")
