"""AUROC within groups of patients and studies, and how far the groups lie apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from medjax.evaluation import metrics
from medjax.evaluation.bootstrap import Interval, average, summarise
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.zero_shot import FindingResult, ZeroShot

AGES = (40, 60, 80)
MACRO = "macro"
_SHUFFLES = 100


@dataclass(frozen=True)
class Gap:
    """interval: the largest less the smallest AUROC of the groups, in each replicate. by_chance: the mean gap where
    the groups are dealt out anew among the patients, since a largest less a smallest is never below 0."""

    interval: Interval
    by_chance: float

    def as_dict(self) -> dict:
        """For results.json."""
        return {**self.interval.as_dict(), "by_chance": round(self.by_chance, 6)}


@dataclass(frozen=True)
class Subgroups:
    """One attribute. examples: of each group. auroc: `{finding: {group: interval}}`, the findings' mean under `MACRO`.
    gaps: `{finding: gap}`. skipped: `{finding: {group: why}}`."""

    attribute: str
    examples: dict[str, int]
    auroc: dict[str, dict[str, Interval]]
    gaps: dict[str, Gap]
    skipped: dict[str, dict[str, str]]

    def as_dict(self) -> dict:
        """For results.json."""
        return {
            "examples": self.examples,
            "auroc": {f: {g: i.as_dict() for g, i in of.items()} for f, of in self.auroc.items()},
            "gap": {f: g.as_dict() for f, g in self.gaps.items()},
            "skipped": self.skipped,
        }


def bands(name: str, values: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """`{group: bool[n]}` of the examples whose value is known.

    Named values are groups of their own. Numbers called "age" are cut at 40, 60 and 80 years, others at the quartiles
    of the table; those of few distinct values, at most four, are not cut.
    """
    if names:
        return {group: values == k for k, group in enumerate(names) if (values == k).any()}
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    if name.lower() == "age":
        cuts = np.array(AGES, np.float64)
    elif len(distinct) <= 4:
        return {f"{v:g}": values == v for v in distinct}
    else:
        cuts = np.unique(np.quantile(values[known], (0.25, 0.5, 0.75)))
    edges = [-np.inf, *cuts, np.inf]
    out = {}
    for low, high in pairwise(edges):
        inside = known & (values >= low) & (values < high)
        if inside.any():
            out[_band(low, high, whole=name.lower() == "age")] = inside
    return out


def _band(low: float, high: float, whole: bool) -> str:
    if low == -np.inf:
        return f"<{high:g}"
    if high == np.inf:
        return f">={low:g}"
    return f"{low:g}-{high - 1:g}" if whole else f"{low:g} to <{high:g}"


def subgroups(
    table: EmbeddingTable,
    result: ZeroShot,
    attributes: Mapping[str, Sequence[str]],
    weights: np.ndarray,
    least: int,
) -> list[Subgroups]:
    """Of every attribute of the table with two groups or more.

    attributes: `{name: names of its values, or () for a number}`. weights: [r, n] of `patient_weights`. least: groups
    with fewer positive or negative examples of a finding are listed and not scored.
    """
    found = []
    for name, values in table.attributes.items():
        groups = bands(name, values, attributes.get(name, ()))
        if len(groups) > 1:
            found.append(_of_attribute(name, groups, table, result, weights, least))
    return found


def _of_attribute(name, groups, table: EmbeddingTable, result: ZeroShot, weights: np.ndarray, least: int) -> Subgroups:
    auroc, gaps, skipped = {}, {}, {}
    by_group: dict[str, list[np.ndarray]] = {g: [] for g in groups}
    null = []
    for f in result.scored:
        truth = table.labels[:, table.label_names.index(f.name)] == 1
        few = {g: _few(truth[f.counted & inside], least) for g, inside in groups.items()}
        if lacking := {g: why for g, why in few.items() if why}:
            skipped[f.name] = lacking
        enough = {g: inside for g, inside in groups.items() if not few[g]}
        values = {g: _auroc(f, truth, inside, weights) for g, inside in enough.items()}
        auroc[f.name] = {g: summarise(v) for g, v in values.items()}
        if len(values) > 1:
            shuffled = _shuffled_gaps(f, truth, list(enough.values()), table.patients)
            gaps[f.name] = Gap(summarise(_gap(list(values.values()))), float(np.nanmean(shuffled)))
        if len(values) == len(groups) and not f.joint:
            for g, v in values.items():
                by_group[g].append(v)
            null.append([_shuffled(f, truth, inside, table.patients) for inside in groups.values()])
    if null:
        macro = {g: average(v) for g, v in by_group.items()}
        auroc[MACRO] = {g: summarise(v) for g, v in macro.items()}
        chance = np.nanmean(_gap(list(np.nanmean(np.array(null), axis=0))))
        gaps[MACRO] = Gap(summarise(_gap(list(macro.values()))), float(chance))
    return Subgroups(name, {g: int(x.sum()) for g, x in groups.items()}, auroc, gaps, skipped)


def _few(truth: np.ndarray, least: int) -> str:
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if positives >= least and negatives >= least:
        return ""
    return f"{positives} positives and {negatives} negatives, at least {least} of each are needed"


def _auroc(f: FindingResult, truth: np.ndarray, inside: np.ndarray, weights: np.ndarray) -> np.ndarray:
    some = f.counted & inside
    return metrics.auroc(f.scores[some], truth[some], weights[:, some])


def _gap(values: Sequence[np.ndarray]) -> np.ndarray:
    """Largest less smallest in each replicate; NaN where a group has no value."""
    return np.max(values, axis=0) - np.min(values, axis=0)


def _shuffled(f: FindingResult, truth: np.ndarray, inside: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """float64[shuffles]: the AUROC of the examples that get this group when the patients exchange theirs. Each patient
    takes the group of another one's first study."""
    first = np.unique(patients, return_index=True)
    member = np.zeros(int(patients.max()) + 1, bool)
    member[first[0]] = inside[first[1]]
    rng = np.random.default_rng(0)  # the same exchange for every group and finding
    orders = np.stack([rng.permutation(first[0]) for _ in range(_SHUFFLES)])
    exchanged = np.zeros((_SHUFFLES, len(member)), bool)
    exchanged[:, first[0]] = member[orders]
    weights = exchanged[:, patients[f.counted]].astype(np.float64)
    return metrics.auroc(f.scores[f.counted], truth[f.counted], weights)


def _shuffled_gaps(f: FindingResult, truth: np.ndarray, groups: Sequence[np.ndarray], patients: np.ndarray):
    return _gap([_shuffled(f, truth, inside, patients) for inside in groups])
