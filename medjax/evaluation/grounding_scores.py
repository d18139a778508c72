"""The grounding of many maps: means over studies with intervals over patients, thresholds from another split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.evaluation import grounding
from medjax.evaluation.bootstrap import Interval, average, summarise, verdict
from medjax.evaluation.metrics import weighted_mean

Maps = Sequence[np.ndarray]
METRICS = {
    "pointing": grounding.pointing,
    "pointing_chance": grounding.pointing_chance,
    "contrast_to_noise": grounding.contrast_to_noise,
    "mean_iou": grounding.mean_iou,
    "pixel_auroc": grounding.pixel_auroc,
}
_THRESHOLDS = 101


@dataclass(frozen=True)
class Grounded:
    """One way of making maps on one finding. replicates: `{metric: float64[1 + r]}`, with "dice" at the threshold of
    the validation split and "dice_oracle" at the best one of the scored split itself; threshold, oracle: these.
    """

    examples: int
    replicates: Mapping[str, np.ndarray]
    threshold: float | None
    oracle: float | None

    def interval(self, metric: str) -> Interval | None:
        """A metric's value and interval; None for a Dice without a validation split to choose by."""
        return summarise(self.replicates[metric]) if metric in self.replicates else None

    @property
    def above_chance(self) -> Interval:
        """How much more often the map's highest pixel hits than a random one."""
        return summarise(self.replicates["pointing"] - self.replicates["pointing_chance"])

    def as_dict(self) -> dict:
        """For results.json."""
        above = self.above_chance
        return {
            "examples": self.examples,
            **{k: summarise(x).as_dict() for k, x in self.replicates.items()},
            "pointing_above_chance": above.as_dict() | {"verdict": verdict(above)},
            "dice_threshold": {"validation": self.threshold, "oracle": self.oracle},
        }


def score(
    maps: Maps, regions: Sequence[np.ndarray], weights: np.ndarray, validation: tuple[Maps, Sequence[np.ndarray]] | None
) -> Grounded:
    """Scores the maps of a finding against its regions.

    weights: float64[1 + r, n], see `patient_weights`. validation: maps and regions of the validation split, to choose
    the threshold of Dice by; None where there are none.
    """
    pairs = list(zip(maps, regions, strict=True))
    replicates = {k: _mean(np.array([measure(*pair) for pair in pairs]), weights) for k, measure in METRICS.items()}
    chosen = {"dice": None if validation is None else _threshold(*validation), "dice_oracle": _threshold(maps, regions)}
    for name, threshold in chosen.items():
        if threshold is not None:
            replicates[name] = _mean(_dice(maps, regions, [threshold])[:, 0], weights)
    return Grounded(len(maps), replicates, *chosen.values())


def macro(results: Sequence[Grounded]) -> Grounded:
    """The mean over findings, replicate by replicate."""
    shared = set.intersection(*(set(r.replicates) for r in results))
    joined = {k: average([r.replicates[k] for r in results]) for k in results[0].replicates if k in shared}
    return Grounded(sum(r.examples for r in results), joined, None, None)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return weighted_mean(values[known], weights[:, known])


def _threshold(maps: Maps, regions: Sequence[np.ndarray]) -> float | None:
    """The best of the thresholds from the lowest to the highest value of the maps; None where nothing was marked."""
    known = [(m, r) for m, r in zip(maps, regions, strict=True) if (np.isfinite(m) & r).any()]
    if not known:
        return None
    grid = np.linspace(min(np.nanmin(m) for m, _ in known), max(np.nanmax(m) for m, _ in known), _THRESHOLDS)
    return grounding.best_threshold(_dice(*zip(*known, strict=True), grid), grid)


def _dice(maps: Maps, regions: Sequence[np.ndarray], thresholds) -> np.ndarray:
    return np.stack([grounding.overlaps(m, r, thresholds)[1] for m, r in zip(maps, regions, strict=True)])


def gain(one: Grounded, control: Grounded, metric: str) -> Interval:
    """How much higher the metric is than a control's on the same studies, paired over patients."""
    return summarise(one.replicates[metric] - control.replicates[metric])
