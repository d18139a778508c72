"""Tables and report of evaluate_geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from medjax.evaluation import geometry_plots
from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.gap_shift import ShiftedPair
from medjax.evaluation.geometry import ModalityGeometry, PairGeometry, unit
from medjax.evaluation.page import Page

Pair = tuple[str, str]
Table = tuple[tuple[str, ...], list[tuple]]
_POINTS = 400  # of each modality, in the scatter plot
_VALUES = ("alignment", "modality_gap", "pair_cosine", "non_pair_cosine", "contrastive_gap", "separability")


@dataclass(frozen=True)
class Shapes:
    """Everything that is measured of one encoder at rest."""

    modalities: Mapping[str, ModalityGeometry]
    pairs: Mapping[Pair, PairGeometry]

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "modalities": {k: m.as_dict() for k, m in self.modalities.items()},
            "pairs": {" and ".join(k): p.as_dict() for k, p in self.pairs.items()},
        }


@dataclass(frozen=True)
class Shift:
    """Pairs moved along their gap. source: the split that told the gap. skipped, no_auroc: why there is nothing."""

    source: str | None
    curves: Mapping[Pair, Sequence[ShiftedPair]]
    skipped: str
    no_auroc: str

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        curves = {" and ".join(k): [p.as_dict() for p in c] for k, c in self.curves.items()}
        return {"gap_of": self.source, "skipped": self.skipped, "no_auroc": self.no_auroc, "pairs": curves}


def modality_table(result: Shapes, before: Shapes | None) -> Table:
    """One row for each modality."""
    header = ("modality", "studies", "uniformity", "untrained", "effective rank", "untrained", "RankMe", "untrained")
    rows = []
    for k, m in result.modalities.items():
        b = before.modalities.get(k) if before else None
        cells = [m.uniformity, f"{b.uniformity.value:.3f}" if b else "-"]
        for rank in ("effective_rank", "rankme"):
            cells += [f"{m.ranks[rank]:.1f}", f"{b.ranks[rank]:.1f}" if b else "-"]
        rows.append((k, m.studies, *cells))
    return header, rows


def pair_table(result: Shapes, before: Shapes | None, torn: Mapping[Pair, PairGeometry]) -> Table:
    """One row for each value of each pair."""
    rows = []
    for k, p in result.pairs.items():
        b = before.pairs.get(k) if before else None
        for name in (v for v in _VALUES if v in p.values):
            controls = (f"{c.values[name].value:.3f}" if c else "-" for c in (b, torn.get(k)))
            rows.append((" and ".join(k), name.replace("_", " "), p.values[name], *controls))
    return ("pair", "value", "measured", "untrained", "shuffled"), rows


def shift_table(shift: Shift, before: Shift | None) -> Table:
    """One row for each curve, one column for each lambda."""
    curves = shift_curves(shift)
    earlier = {f"{k}, untrained": v for k, v in (shift_curves(before) if before else {}).items()}
    shifts = [f"{p.shift:g}" for p in next(iter(shift.curves.values()), ())]
    rows = [(k, *(f"{v.value:.3f}" for v in c)) for k, c in sorted({**curves, **earlier}.items())]
    return ("moved along the gap, lambda", *shifts), rows


def shift_curves(shift: Shift) -> dict[str, list[Interval]]:
    """Values at every lambda, by what they are."""
    out = {}
    for (x, _), curve in shift.curves.items():
        for direction in curve[0].recall:
            out[f"{direction.replace('_', ' ')}, recall@10"] = [p.recall[direction] for p in curve]
        if curve[0].auroc:
            out[f"{x} zero-shot, macro AUROC"] = [p.auroc for p in curve]
    return out


def fill(
    page: Page,
    table: EmbeddingTable,
    result: Shapes,
    before: Shapes | None,
    torn: Mapping[Pair, PairGeometry],
    shift: Shift,
    shift_before: Shift | None,
) -> None:
    """Everything below the head of the page."""
    page.text(
        "All embeddings are scaled to unit length. Uniformity: logarithm of the mean of exp(-2 d^2) over all pairs of "
        "studies; lower is more spread out. Effective rank: exponential of the entropy of the singular values, of "
        "centred embeddings; RankMe: likewise, not centred. Ranks have no interval: a study drawn twice adds none."
    )
    page.table(*modality_table(result, before))
    points, explained = _plane(table)
    if points:
        page.figure(geometry_plots.scatter(points, explained), "Modalities in the plane of largest variance")
    spectra = {k: m.spectrum for k, m in result.modalities.items() if m.spectrum[0] > 0}
    earlier = {k: m.spectrum for k, m in before.modalities.items() if m.spectrum[0] > 0} if before else {}
    if spectra:
        page.figure(geometry_plots.spectra(spectra, earlier), "Singular values of the centred embeddings")
    if result.pairs:
        page.heading("Pairs of modalities")
        page.text(
            "Alignment: mean squared distance of a study's two embeddings; 2 where they are unrelated and without a "
            "gap. Modality gap: distance of the two means. Contrastive gap: mean cosine of pairs less that of "
            "embeddings of different patients with different texts; 0 where nothing is learnt. Separability: accuracy "
            "of a logistic regression that tells the modalities apart on patients it has not seen; 0.5 where they are "
            "mixed. Shuffled: embeddings dealt out anew among the studies; gap and separability are of the two clouds "
            "and stay."
        )
        page.table(*pair_table(result, before, torn))
    _shifted(page, shift, shift_before)


def _shifted(page: Page, shift: Shift, before: Shift | None) -> None:
    if not shift.curves and not shift.skipped:
        return
    page.heading("Moved along the gap")
    if shift.skipped:
        page.note(f"Not done: {shift.skipped}.")
        return
    page.text(
        "x - lambda gap and y + lambda gap, at unit length again, where gap is the difference of the means of x and y "
        f"on the {shift.source} split; at 0 nothing is moved, near 0.5 the means meet. AUROC: findings that the "
        "modality shows by itself, by prompts, which move with the text. No lambda is chosen here: choose on "
        "validation what you report on test."
    )
    if shift.no_auroc:
        page.text(f"Without AUROC: {shift.no_auroc}.")
    shifts = [p.shift for p in next(iter(shift.curves.values()), ())]
    panels = []
    for pair, curve in shift.curves.items():
        if not curve[0].recall:
            continue
        lines = {k.replace("_", " "): [p.recall[k] for p in curve] for k in curve[0].recall}
        chance = float(np.mean(list(curve[0].chance.values())))
        panels.append(geometry_plots.Panel(" and ".join(pair), "recall@10", lines, chance))
        if curve[0].auroc:
            auroc = {"AUROC": [p.auroc for p in curve]}
            panels.append(geometry_plots.Panel(f"{pair[0]}, zero-shot", "macro AUROC", auroc, 0.5))
    if panels:
        caption = "Scores against lambda, with intervals; dotted: chance"
        page.figure(geometry_plots.curves(shifts, panels, "lambda"), caption)
    page.table(*shift_table(shift, before))


def _plane(table: EmbeddingTable) -> tuple[dict[str, np.ndarray], Sequence[float]]:
    """Coordinates by modality in the first two principal components of all together; empty where widths differ."""
    parts = {m: unit(x[table.present[m]][:_POINTS]) for m, x in table.embeddings.items() if table.present[m].any()}
    every = list(parts.values())
    if len({x.shape[1] for x in every}) != 1 or sum(map(len, every)) < 3 or every[0].shape[1] < 2:
        return {}, ()
    pca = PCA(2).fit(np.concatenate(every))
    return {m: pca.transform(x) for m, x in parts.items()}, pca.explained_variance_ratio_
