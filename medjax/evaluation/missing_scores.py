"""A score over all subsets of modalities, with randomly missing numbers, and with noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.evaluation import missing
from medjax.evaluation.bootstrap import summarise
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.robustness_scores import Score

Subset = tuple[str, ...]


@dataclass(frozen=True)
class MissingResult:
    """Values float64[1 + r] on examples that have all modalities. emm: of each subset that is left. rmm: `{ratio:
    {subset that is undamaged: value}}`. nm: `{kind of noise: {amount: value}}`.
    """

    modalities: Subset
    studies: int
    emm: dict[Subset, np.ndarray]
    rmm: dict[float, dict[Subset, np.ndarray]]
    nm: dict[str, dict[float, np.ndarray]]

    @property
    def full(self) -> np.ndarray:
        """With all modalities."""
        return self.emm[self.modalities]

    def averages(self, values: dict[Subset, np.ndarray]) -> dict[str, np.ndarray]:
        """Plain mean over subsets, and the expectations if each modality is missing with probability p."""
        out = {"mean": np.mean(list(values.values()), axis=0)}
        return out | {f"p={p}": missing.expectation(values, self.modalities, p) for p in missing.PROBABILITIES}

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""

        def intervals(values: dict) -> dict:
            return {str(k): summarise(v).as_dict() for k, v in values.items()}

        return {
            "studies": self.studies,
            "full": summarise(self.full).as_dict(),
            "emm": {
                "subsets": intervals({"+".join(k): v for k, v in self.emm.items()}),
                "averages": intervals(self.averages(self.emm)),
            },
            "rmm": {str(ratio): {"averages": intervals(self.averages(of))} for ratio, of in self.rmm.items()},
            "nm": {kind: intervals(of) for kind, of in self.nm.items()},
        }


def missing_scores(score: Score, table: EmbeddingTable, modalities: Sequence[str], seed: int = 0) -> MissingResult:
    """table: of examples that have all of these modalities."""
    modalities = tuple(modalities)
    every = missing.subsets(modalities)
    emm = {kept: score.measure(missing.without(table, modalities, kept))[0] for kept in every}
    rmm = {
        ratio: {
            kept: score.measure(missing.randomly_missing(table, modalities, kept, ratio, seed))[0] for kept in every
        }
        for ratio in missing.RATIOS
    }
    noise = {"salt_and_pepper": missing.SALT_AND_PEPPER, "gaussian": missing.GAUSSIAN}
    nm = {
        kind: {x: score.measure(missing.noisy(table, modalities, kind, x, seed))[0] for x in amounts}
        for kind, amounts in noise.items()
    }
    return MissingResult(modalities, len(table), emm, rmm, nm)
