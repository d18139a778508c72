"""Linear probes on frozen embeddings: python -m medjax.bin.evaluate_probe --workdir=RUN.

A logistic regression on the embeddings of each modality, and of all but text together, against the same encoder before
training and against the raw input; fitted on the training split, chosen on validation, scored on the test split.
"""

from collections.abc import Sequence

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import Subject, load_subject
from medjax.errors import UserError
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import Interval, summarise, verdict
from medjax.evaluation.page import Page
from medjax.evaluation.probe import Features, ProbeResult, joined_features, linear_probe, raw_features

_RAW = flags.DEFINE_bool("raw", True, "Also probe the preprocessed input itself, reduced to its principal components.")
_SPLITS = ("train", "validation", "test")
Probes = dict[str, dict[str, ProbeResult]]  # {what is probed: {features: result}}


def main() -> None:
    """Evaluates, prints a table, writes results.json and report.html."""
    subject = load_subject("probe")
    labels = subject.labels
    if not labels:
        raise UserError(f"data set {subject.data['name']!r} has no labels to probe for")
    if subject.split != "test":
        raise UserError("a probe is fitted on train, chosen on validation and scored on test; leave --split out")
    modalities = [m for m in subject.modalities if m != "text"]
    if not modalities:
        raise UserError("this encoder reads text alone, and a probe on reports would read the answer")
    probes: Probes = {m: {} for m in (*modalities, *(["all together"] if len(modalities) > 1 else []))}
    for name, of in (("trained", subject), ("untrained", subject.untrained())):
        for what, features in _embedded(of, modalities).items() if of else ():
            probes[what][name] = linear_probe(features, labels)
    if _RAW.value and subject.dataset:
        for what, features in _raw(subject, modalities).items():
            probes[what]["raw input"] = linear_probe(features, labels)
    if all(p.macro is None for of in probes.values() for p in of.values()):
        raise UserError("no label has both classes in the training and test split")
    _publish(subject, probes)


def _embedded(subject: Subject, modalities: Sequence[str]) -> dict[str, dict[str, Features]]:
    tables = {split: subject.table(split) for split in _SPLITS}
    sets = {m: [m] for m in modalities} | ({"all together": modalities} if len(modalities) > 1 else {})
    return {k: {s: joined_features(t, used) for s, t in tables.items()} for k, used in sets.items()}


def _raw(subject: Subject, modalities: Sequence[str]) -> dict[str, dict[str, Features]]:
    batches = {s: list(subject.batches(s)) for s in _SPLITS}
    sets = {m: [m] for m in modalities} | ({"all together": modalities} if len(modalities) > 1 else {})
    return {k: raw_features(batches, used) for k, used in sets.items()}


def _publish(subject: Subject, probes: Probes) -> None:
    about = subject.about(subject.table())
    gains = {k: {c: g for c in ("untrained", "raw input") if (g := _gain(of, c))} for k, of in probes.items()}
    header = ("features", "trained", "untrained", "raw input", "trained above untrained", "trained above raw input")
    rows = [
        (k, *(_macro(of.get(n)) for n in ("trained", "untrained", "raw input")), *_verdicts(gains[k]))
        for k, of in probes.items()
    ]
    print("macro AUROC of a linear probe")
    cli.print_table(header, rows)
    results = {
        **about,
        "probe": {k: {n.replace(" ", "_"): p.as_dict() for n, p in of.items()} for k, of in probes.items()},
        "gain": {
            k: {c.replace(" ", "_"): {"macro_auroc": i.as_dict(), "verdict": verdict(i)} for c, i in of.items()}
            for k, of in gains.items()
        },
        "controls": {"chance": {"macro_auroc": 0.5}},
    }
    page = subject.page("Linear probe", about)
    _fill(page, probes, header, rows)
    subject.save(results, page)


def _macro(probe: ProbeResult | None) -> Interval | str:
    return probe.macro if probe and probe.macro else "-"


def _gain(of: dict[str, ProbeResult], control: str) -> Interval | None:
    """The paired difference of macro AUROC."""
    both = of["trained"].macro_replicates, of[control].macro_replicates if control in of else None
    return None if both[0] is None or both[1] is None else summarise(both[0] - both[1])


def _verdicts(gains: dict[str, Interval]) -> list[str]:
    found = (gains.get(c) for c in ("untrained", "raw input"))
    return ["-" if i is None else f"{i}: {verdict(i)}" for i in found]


def _fill(page: Page, probes: Probes, header, rows) -> None:
    page.text(
        "Logistic regression on frozen features, standardised by the training split; its regularisation was chosen on "
        "the validation split. The untrained encoder has the same architecture and random parameters. Raw input is the "
        "preprocessed input itself, reduced to its principal components. Differences are paired over patients."
    )
    page.table(header, rows)
    for what, of in probes.items():
        page.heading(what, 3)
        best = of["trained"]
        if best.auroc:
            page.figure(plots.intervals(list(best.auroc.items()), 0.5, "AUROC"), f"AUROC of each label from {what}")
        for name, why in best.skipped.items():
            page.note(f"{name} is not scored: {why}.")
        names = [n for n in of if n != "trained"]
        cells = [(k, i, *(of[n].auroc.get(k, "-") for n in names)) for k, i in best.auroc.items()]
        page.table(("label", "trained", *names), cells)
    counted = {k: len(of["trained"].auroc) for k, of in probes.items()}
    page.text(f"Labels scored: {', '.join(f'{n} from {k}' for k, n in counted.items())}.")


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
