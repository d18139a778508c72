"""The tables and figures of a probe and of what it is set against."""

from collections.abc import Mapping

from medjax.bin import cli
from medjax.evaluation import plots
from medjax.evaluation.bootstrap import Interval, summarise, verdict
from medjax.evaluation.page import Page
from medjax.evaluation.probe import ProbeResult
from medjax.evaluation.recipes import NORMALISATIONS, Recipe

Probes = dict[str, dict[str, ProbeResult]]  # {features: {where they come from: result}}
_AGAINST = ("untrained", "raw input", "shuffled")
_NAMES = {"attributes": "attributes alone (linear)", "text": "text alone (linear; reads the answer)"}


def gains_of(of: Mapping[str, ProbeResult]) -> dict[str, Interval]:
    """The paired differences of macro AUROC to each control."""
    best, out = of["trained"].macro_replicates, {}
    for control in _AGAINST:
        other = of[control].macro_replicates if control in of else None
        if best is not None and other is not None:
            out[control] = summarise(best - other)
    return out


def print_probes(probes: Probes, controls: Mapping[str, ProbeResult], recipe: Recipe) -> None:
    """The console's table."""
    print(f"macro AUROC of a probe: {recipe.says}; features {NORMALISATIONS[recipe.normalise]}")
    cli.print_table(*_table(probes, controls))


def _table(probes: Probes, controls: Mapping[str, ProbeResult]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Header and rows; a control that was not run is left out."""
    against = [c for c in _AGAINST if any(c in of for of in probes.values())]
    header = ("features", "trained", *against, *(f"trained above {c}" for c in against if c != "shuffled"))
    rows = []
    for what, of in probes.items():
        gains = gains_of(of)
        said = [f"{gains[c]}: {verdict(gains[c])}" if c in gains else "-" for c in against if c != "shuffled"]
        rows.append((what, _macro(of["trained"]), *(_macro(of.get(c)) for c in against), *said))
    rows += [(_NAMES[k], _macro(p), *[""] * (len(header) - 2)) for k, p in controls.items()]
    return header, rows


def _macro(probe: ProbeResult | None) -> Interval | str:
    return probe.macro if probe and probe.macro else "-"


def fill(page: Page, probes: Probes, controls: Mapping[str, ProbeResult], recipe: Recipe) -> None:
    """The page's part on labels."""
    page.text(
        f"What is fitted: {recipe.says}, on frozen features {NORMALISATIONS[recipe.normalise]}; settings were chosen "
        "by AUROC on the validation split. The untrained encoder has the same architecture and random parameters. Raw "
        "input is the preprocessed input itself, reduced to its principal components. Shuffled features were dealt "
        "anew among the examples. Differences are paired over patients."
    )
    page.table(*_table(probes, controls))
    for what, of in probes.items():
        page.heading(what, 3)
        best = of["trained"]
        if best.auroc:
            page.figure(plots.intervals(list(best.auroc.items()), 0.5, "AUROC"), f"AUROC of each label from {what}")
        for name, why in best.skipped.items():
            page.note(f"{name} is not scored: {why}.")
        names = [n for n in of if n != "trained"]
        cells = [
            (k, i, *(of[n].auroc.get(k, "-") for n in names), best.auprc[k], _setting(best.chosen[k]))
            for k, i in best.auroc.items()
        ]
        page.table(("label", "AUROC, trained", *names, "AUPRC, trained", "chosen"), cells)
    counted = {what: len(of["trained"].auroc) for what, of in probes.items()}
    page.text(f"Labels scored: {', '.join(f'{n} from {what}' for what, n in counted.items())}.")


def _setting(chosen: Mapping[str, float]) -> str:
    return ", ".join(f"{k} {v:.3g}" for k, v in chosen.items())
