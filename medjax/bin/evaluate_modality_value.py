"""What each modality adds: python -m medjax.bin.evaluate_modality_value --workdir=RUN [--recipe=mlp].

Probes of every subset of the modalities, for every label: what all together score above the best subset without a
modality answers whether, say, the ECG adds anything; what they score above the best single modality says whether they
must be read together. Fitted on the training split, all choices on validation, scored on the test split.
"""

from typing import Any

from absl import flags

from medjax.bin import cli
from medjax.bin.evaluation import load_subject
from medjax.bin.probe_features import READS, SPLITS, chosen_recipe, probed
from medjax.errors import UserError, check_choice
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import verdict
from medjax.evaluation.controls import shuffled
from medjax.evaluation.modality_value import MOST, Difference, ModalityValue, modality_value
from medjax.evaluation.page import Page
from medjax.evaluation.probe import ProbeResult, fit_probe, joined_features
from medjax.evaluation.recipes import NORMALISATIONS, RECIPES, Recipe

_RECIPE = flags.DEFINE_enum(
    "recipe",
    "mlp",
    list(RECIPES),
    "What is fitted on each subset; a linear one finds no interaction. See evaluate_probe.",
)
_MODALITIES = flags.DEFINE_list("modalities", [], f"Two to {MOST} of those embedded; default: all but text.")


def main() -> None:
    """Evaluates, prints tables, writes results.json and report.html."""
    subject = load_subject("modality_value")
    recipe, usual = chosen_recipe(_RECIPE.value), probed(subject)
    modalities = tuple(_MODALITIES.value) or usual
    for m in modalities:
        check_choice("modality in --modalities", m, subject.modalities)
    if not 2 <= len(set(modalities)) <= MOST:
        raise UserError(f"the value of a modality is that beside others: pass --modalities, two to {MOST} of them")
    if not subject.labels:
        raise UserError(f"data set {subject.data['name']!r} has no labels to probe for")
    tables = {split: subject.table(split) for split in SPLITS}
    value = modality_value(tables, modalities, subject.labels, recipe)
    if not value.synergy:
        raise UserError("no label has both classes in the training and test split")
    dealt = {split: shuffled(t, seed) for seed, (split, t) in enumerate(tables.items())}
    features = {k: joined_features(t, modalities, recipe.flags) for k, t in dealt.items()}
    control = fit_probe(features, subject.labels, recipe)
    about = subject.about(subject.table())
    page = subject.page("What each modality adds", about)
    if "text" in modalities:
        page.note(READS)
        print(READS)
    _show(page, value, control, recipe)
    subject.save({**about, "recipe": recipe.as_dict(), **_as_dict(value, control)}, page)


def _as_dict(value: ModalityValue, control: ProbeResult) -> dict[str, Any]:
    return {
        "subsets": {"+".join(s): p.as_dict() for s, p in value.probes.items()},
        "synergy": {k: {m: d.as_dict() for m, d in of.items()} for k, of in value.synergy.items()},
        "interaction": {k: d.as_dict() for k, d in value.interaction.items()},
        "controls": {"chance": {"macro_auroc": 0.5}, "shuffled": control.as_dict()},
        "skipped": value.skipped,
    }


def _show(page: Page, value: ModalityValue, control: ProbeResult, recipe: Recipe) -> None:
    """Prints what counts, and writes all of it."""
    every = next(reversed(value.probes))
    said = f"{recipe.says}; features {NORMALISATIONS[recipe.normalise]}"
    header, rows = ("label", *(f"adds: {m}" for m in every), "together"), []
    for label, of in value.synergy.items():
        rows.append((label, *(_said(of[m]) for m in every), _said(value.interaction[label])))
    print(f"AUROC of {' + '.join(every)} above the best subset without a modality, and above the best single one")
    print(f"probe: {said}")
    cli.print_table(header, rows)
    page.text(
        f"A probe ({said}) of every subset of the modalities. What a modality adds is the AUROC of all together less "
        "that of the best subset without it; together: less that of the best single modality. Which subset is best was "
        "chosen on validation; differences are paired over patients. Above zero beyond the interval: it adds something."
    )
    page.table(header, rows)
    macros = [(" + ".join(s), p.macro) for s, p in value.probes.items()]
    page.figure(plots.intervals(macros, 0.5, "macro AUROC"), "Macro AUROC of every subset of the modalities")
    for name, why in value.skipped.items():
        page.note(f"{name} is not scored: {why}.")
    page.heading("AUROC of every subset")
    cells = [("macro", *(p.macro for p in value.probes.values()), control.macro)]
    cells += [(k, *(p.auroc[k] for p in value.probes.values()), control.auroc[k]) for k in value.probes[every].auroc]
    page.table(("label", *(" + ".join(s) for s in value.probes), "all, shuffled"), cells)


def _said(difference: Difference) -> str:
    meant = {"better": "adds", "worse": "harms"}.get(verdict(difference.interval), "not resolvable")
    return f"{difference.interval} {meant}"


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
