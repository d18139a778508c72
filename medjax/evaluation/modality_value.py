"""What each modality adds to a probe: scores of every subset of modalities, and paired differences between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medjax.evaluation.bootstrap import Interval, average, summarise, verdict
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import ProbeResult, fit_probe, joined_features
from medjax.evaluation.recipes import Recipe

Subset = tuple[str, ...]
MACRO = "macro"
MOST = 4


@dataclass(frozen=True)
class Difference:
    """AUROC of all modalities less that of a subset, paired over patients of the test split. The subset is the best of
    several on validation."""

    subset: Subset
    interval: Interval

    def as_dict(self) -> dict:
        """For results.json."""
        return {"above": list(self.subset), "auroc": self.interval.as_dict(), "verdict": verdict(self.interval)}


@dataclass(frozen=True)
class ModalityValue:
    """probes: of each subset. synergy: `{label: {modality: all less the best subset without it}}`. interaction:
    `{label: all less the best single modality}`. Labels include `MACRO`, the mean of all."""

    probes: dict[Subset, ProbeResult]
    synergy: dict[str, dict[str, Difference]]
    interaction: dict[str, Difference]
    skipped: dict[str, str]


def subsets(modalities: Sequence[str]) -> list[Subset]:
    """All that are not empty, small ones first."""
    return [s for k in range(1, len(modalities) + 1) for s in combinations(modalities, k)]


def modality_value(
    tables: Mapping[str, EmbeddingTable], modalities: Sequence[str], label_names: Sequence[str], recipe: Recipe
) -> ModalityValue:
    """Fits the recipe on the joined features of every subset. tables: "train", "validation", "test"."""
    probes = {
        s: fit_probe({k: joined_features(t, s, recipe.flags) for k, t in tables.items()}, label_names, recipe)
        for s in subsets(modalities)
    }
    every = tuple(modalities)
    labels = list(probes[every].auroc)
    names = [MACRO, *labels] if labels else []
    synergy = {
        k: {m: _difference(probes, every, [s for s in probes if m not in s], k) for m in modalities} for k in names
    }
    interaction = {k: _difference(probes, every, [s for s in probes if len(s) == 1], k) for k in names}
    return ModalityValue(probes, synergy, interaction, probes[every].skipped)


def _difference(
    probes: Mapping[Subset, ProbeResult], every: Subset, others: Sequence[Subset], label: str
) -> Difference:
    def on_validation(s: Subset) -> float:
        found = probes[s].validation
        return float(np.mean(list(found.values()))) if label == MACRO else found[label]

    best = max(others, key=on_validation)
    return Difference(best, summarise(_replicates(probes[every], label) - _replicates(probes[best], label)))


def _replicates(probe: ProbeResult, label: str) -> np.ndarray:
    return average(list(probe.replicates.values())) if label == MACRO else probe.replicates[label]
