"""What becomes of retrieval and zero-shot scores when two modalities are moved towards each other at test time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medjax.data.manifest import Finding
from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.geometry import unit
from medjax.evaluation.joint import mean
from medjax.evaluation.retrieval import pairwise_retrieval
from medjax.evaluation.zero_shot import zero_shot

Prompts = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ShiftedPair:
    """One pair of modalities at one lambda. recall: recall@10 by direction. auroc: macro over the findings that the
    first modality shows, by prompts; None where it is not paired with text, or no finding can be scored.
    """

    shift: float
    recall: Mapping[str, Interval]
    chance: Mapping[str, float]
    auroc: Interval | None

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "lambda": self.shift,
            "recall@10": {k: v.as_dict() for k, v in self.recall.items()},
            "chance": dict(self.chance),
            "macro_auroc": self.auroc.as_dict() if self.auroc else None,
        }


def gap_vector(table: EmbeddingTable, first: str, second: str) -> np.ndarray | None:
    """float64[E]: the mean of the first modality less that of the second, over studies that have both; None without."""
    both = table.all_present((first, second))
    if not both.any():
        return None
    return unit(table.embeddings[first][both]).mean(axis=0) - unit(table.embeddings[second][both]).mean(axis=0)


def shift_pair(
    table: EmbeddingTable,
    first: str,
    second: str,
    gap: np.ndarray,
    shifts: Sequence[float],
    prompts: Prompts,
    findings: Mapping[str, Finding],
) -> list[ShiftedPair]:
    """`x <- unit(x - lambda gap)` for the first modality, `y <- unit(y + lambda gap)` for the second, as in arXiv
    2203.02053, so that the means meet near a half.

    gap: float64[E], of another split. prompts: float32[p, E] of each side of each finding; they move with the text.
    """
    out = []
    for shift in shifts:
        x, y = (
            unit(unit(table.embeddings[m]) + s * shift * gap).astype(np.float32) for m, s in ((first, -1), (second, 1))
        )
        moved = replace(table, embeddings={first: x, second: y})
        found = pairwise_retrieval(moved)
        recall, chance = {r.name: r.recall[10] for r in found}, {r.name: r.chance_recall[10] for r in found}
        auroc = None
        if second == "text":
            auroc = _auroc(replace(table, embeddings={first: x}), first, shift * gap, prompts, findings)
        out.append(ShiftedPair(shift, recall, chance, auroc))
    return out


def _auroc(table: EmbeddingTable, shown: str, by: np.ndarray, prompts: Prompts, findings) -> Interval | None:
    """Macro AUROC of the findings that this modality shows by itself."""
    alone = {k: f for k, f in findings.items() if k in prompts and not f.joint and set(f.seen_in) <= {shown}}
    moved = {k: tuple(unit(unit(x) + by).astype(np.float32) for x in prompts[k]) for k in alone}
    return zero_shot(table.where(table.present[shown]), moved, alone, mean).macro if moved else None
