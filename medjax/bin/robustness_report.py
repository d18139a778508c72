"""Console tables, results and pages of `medjax.bin.evaluate_robustness`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.bin import cli
from medjax.bin.evaluation import Subject
from medjax.bin.robustness_settings import Baseline, Settings
from medjax.data.records import decode_text
from medjax.evaluation import robustness_plots as plots
from medjax.evaluation.bootstrap import Interval, summarise
from medjax.evaluation.corruptions import Corruption
from medjax.evaluation.corruptions.embedding import Corruptor
from medjax.evaluation.missing import PROBABILITIES
from medjax.evaluation.missing_scores import MissingResult
from medjax.evaluation.page import Page
from medjax.evaluation.robustness import FLAGGED, Curve, Relative, mean_over
from medjax.evaluation.robustness_scores import Score

_WORDS = 40


@dataclass(frozen=True)
class Measured:
    """A score under the corruptions of a modality. untrained: replicates of the untrained encoder's, intact."""

    score: Score
    curves: Sequence[Curve]
    untrained: np.ndarray | None


@dataclass(frozen=True)
class Missing:
    """A score without modalities. untrained: as in `Measured`."""

    score: Score
    result: MissingResult
    untrained: np.ndarray | None


def corruptions(
    found: Mapping[str, Mapping[str, Measured]], baseline: Baseline | None, page: Page, settings: Settings
) -> dict[str, Any]:
    """Prints and shows the curves; returns their part of results.json."""
    out: dict[str, Any] = {}
    page.heading("Corruptions")
    page.text(
        "Raw items are corrupted before the encoder's own preprocessing, one modality at a time; the others stay "
        "intact. Drop is the intact score less the mean over levels, paired over patients; error is the balanced error "
        "(1 - mean of sensitivity and specificity, at thresholds that are best on the intact validation split), mean "
        "over levels. For retrieval it is 1 - recall@10."
    )
    for modality, scores in found.items():
        page.heading(f"{modality} corrupted", 3)
        out[modality] = {}
        for name, measured in scores.items():
            ratio = baseline.relative(modality, name, measured.curves) if baseline else None
            out[modality][name] = _one(modality, measured, ratio, baseline, page, settings)
    return out


def _one(
    modality: str,
    measured: Measured,
    ratio: Relative | None,
    baseline: Baseline | None,
    page: Page,
    settings: Settings,
) -> dict[str, Any]:
    score, curves = measured.score, measured.curves
    mean = mean_over(curves)
    clean = summarise(mean.value[0])
    before = summarise(measured.untrained) if measured.untrained is not None else None
    line = f"{modality} corrupted, {score.name}: {score.metric} {clean} intact, {before or '-'} untrained, "
    line += f"{score.chance:.3f} chance"
    header = ("corruption", *(f"level {k}" for k in settings.levels), "drop", "error")
    header += ("BE", "RBE") if ratio else ()
    rows = [_row(c, ratio) for c in (*curves, *([mean] if len(curves) > 1 else []))]
    print(f"\n{line}")
    cli.print_table(header, rows)
    page.text(line + ".")
    page.table(header, rows)
    if ratio:
        verdict = _against(ratio, baseline)
        print(verdict)
        page.text(verdict)
    untrained = before.value if before else None
    shown = [*curves, mean] if len(curves) > 1 else list(curves)
    page.figure(plots.degradation(shown, score.metric, score.chance, untrained), _caption(score))
    for label, why in score.skipped.items():
        page.note(f"{label} is not scored: {why}.")
    return {
        "score": score.name,
        "metric": score.metric,
        "clean": clean.as_dict(),
        "clean_error": summarise(mean.error[0]).as_dict(),
        "controls": {"untrained": before.as_dict() if before else None, "chance": round(score.chance, 6)},
        "labels": list(score.labels),
        "thresholds": {k: round(v, 6) for k, v in score.thresholds.items()},
        "skipped": dict(score.skipped),
        "kinds": {c.kind: c.as_dict() for c in curves},
        "mean": mean.as_dict(),
        "relative": {"baseline": baseline.name, **ratio.as_dict()} if ratio else None,
    }


def _row(curve: Curve, ratio: Relative | None) -> tuple:
    values = [f"{curve.value[k][0]:.3f}" for k in curve.levels]
    row = (curve.kind, *values, summarise(curve.drop), f"{curve.mean_error[0]:.3f}")
    if ratio is None:
        return row
    if curve.kind not in ratio.be:
        return (*row, _number(ratio.mean_be), _number(ratio.mean_rbe)) if curve.kind == "mean" else (*row, "-", "-")
    return (*row, _number(ratio.be[curve.kind]), _number(ratio.rbe[curve.kind]) + "*" * (curve.kind in ratio.flagged))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _against(ratio: Relative, baseline: Baseline) -> str:
    text = f"Relative to {baseline.name}: mCE {_number(ratio.mce)} (100 for it), over {len(ratio.be)} corruptions."
    if ratio.flagged:
        text += f" * The baseline changes by less than {FLAGGED}: the ratio means little and is not in the mean."
    return text


def _caption(score: Score) -> str:
    return f"{score.metric}, {score.name}, by level, with intervals; dashed: chance; dotted: untrained and intact"


def missing(found: Mapping[str, Missing], page: Page) -> dict[str, Any]:
    """Prints and shows what is left without modalities; returns its part of results.json."""
    if not found:
        return {}
    page.heading("Missing and noisy modalities")
    page.text(
        "On the studies that have all inputs. Entirely missing: only a subset is there. Randomly missing: numbers of "
        "the embeddings outside the subset are 0 with the stated probability. Noise is added to all embeddings. p=x is "
        "the expectation over subsets where each modality is missing with probability x and one is there."
    )
    out = {}
    for name, m in found.items():
        result, score = m.result, m.score
        before = summarise(m.untrained) if m.untrained is not None else None
        line = f"without modalities, {score.name}: {score.metric} {summarise(result.full)} with all, "
        line += f"{before or '-'} untrained with all, {score.chance:.3f} chance; {result.studies} studies"
        print(f"\n{line}")
        subsets = [(" + ".join(k), summarise(v)) for k, v in result.emm.items()]
        cli.print_table(("what is there", score.metric), subsets)
        header = ("damage", "mean over subsets", *(f"p={p}" for p in PROBABILITIES))
        rows = [("entirely missing", *_averages(result, result.emm))]
        rows += [(f"{ratio:.0%} of numbers missing", *_averages(result, of)) for ratio, of in result.rmm.items()]
        noise = [(f"{k.replace('_', ' ')}, {a}", summarise(v)) for k, of in result.nm.items() for a, v in of.items()]
        cli.print_table(header, rows)
        cli.print_table(("noise on all modalities", score.metric), noise)
        page.heading(score.name, 3)
        page.text(line + ".")
        figure = plots.subset_bars([k for k, _ in subsets], list(result.emm.values()), score.metric, score.chance)
        page.figure(figure, f"{score.metric} of each subset of modalities")
        page.table(header, rows)
        page.table(("noise on all modalities", score.metric), noise)
        controls = {"untrained": before.as_dict() if before else None, "chance": round(score.chance, 6)}
        out[name] = {"score": score.name, "metric": score.metric, "controls": controls, **result.as_dict()}
    return out


def _averages(result: MissingResult, values: Mapping[tuple[str, ...], np.ndarray]) -> list[Interval]:
    return [summarise(v) for v in result.averages(values).values()]


def examples(
    subject: Subject,
    corruptor: Corruptor,
    kinds: Mapping[str, Sequence[Corruption]],
    levels: Sequence[int],
    page: Page,
) -> None:
    """One example of each modality at each level."""
    page.heading("What the levels look like")
    if subject.dataset.manifest.sensitive:
        page.note("Not shown: the data set is marked sensitive.")
        return
    for modality, of in kinds.items():
        there = np.flatnonzero(corruptor.table.present[modality])
        if not len(there):
            continue
        item, schema, row = corruptor.example(modality, int(there[0]))
        shown = {c.name: [item, *(c(item, k, schema, corruptor.seed, row) for k in levels)] for c in of}
        page.heading(modality, 3)
        if schema.kind in ("text", "labs"):
            header = ("corruption", "intact", *(f"level {k}" for k in levels))
            page.table(header, [(name, *(_words(x, schema) for x in xs)) for name, xs in shown.items()])
        else:
            caption = f"{modality} of one example, intact and at levels {', '.join(map(str, levels))}"
            page.figure(plots.grid(shown, schema, levels), caption)


def _words(item: np.ndarray, schema) -> str:
    if schema.kind == "text":
        words = decode_text(item).split()
        return " ".join(words[:_WORDS]) + (" ..." if len(words) > _WORDS else "")
    return ", ".join(f"{n} {v:.3g}" for n, v in zip(schema.names, item, strict=True) if not np.isnan(v))
