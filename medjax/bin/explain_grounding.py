"""Scores of maps against boxes, with their controls: the part of `medjax.bin.explain` that measures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.bin.explain_studies import Asked, Studies
from medjax.evaluation import grounding
from medjax.evaluation.bootstrap import patient_weights
from medjax.evaluation.explain.explainer import EXPLANATIONS, Item
from medjax.evaluation.explain.geometry import placements
from medjax.evaluation.grounding_scores import Grounded, Maps, score

CONTROLS = ("random", "centre", "untrained", "wrong prompt")
# finding -> explanation -> "trained" or one of CONTROLS
Scores = Mapping[str, Mapping[str, Mapping[str, Grounded]]]


@dataclass(frozen=True)
class Scene:
    """The studies of a split that are marked with a finding: positions in its table, items of the modality, regions."""

    studies: Studies
    at: np.ndarray
    items: list[Item]
    regions: list[np.ndarray]

    @classmethod
    def of(cls, studies: Studies, finding: str, modality: str) -> "Scene":
        """Those that have the modality."""
        at = studies.marked(finding, modality)
        rows = studies.table.rows[at]
        items = studies.items(modality, rows)
        transform = studies.subject.dataset.transforms[modality]
        shapes = [tuple(p.n for p in placements(transform, item.raw)) for item in items]
        boxes = studies.boxes.get(finding, {})
        return cls(studies, at, items, [grounding.region(boxes[r], s) for r, s in zip(rows, shapes, strict=True)])


@dataclass(frozen=True)
class Grounding:
    """Scores the explanations of one finding on one modality.

    scene: of the scored split. validation: of the one that thresholds come from, None where there is no other. wrong:
    another finding, whose prompts are the control.
    """

    finding: str
    wrong: str
    modality: str
    scene: Scene
    validation: Scene | None

    def score(self, asked: Asked, method: str, wrong: bool = False) -> Grounded:
        """Of an encoder's maps; with `wrong` of those for another finding, or another study's embedding."""
        return self._scored(lambda scene: self._maps(scene, asked, method, wrong))

    def _maps(self, scene: Scene, asked: Asked, method: str, wrong: bool) -> Maps:
        """As they are scored: cosines as they are, others from 0 to 1."""
        at = np.roll(scene.at, 1) if wrong and not asked.by_prompt else scene.at
        to = asked.target(self.wrong if wrong else self.finding, scene.studies.split, at)
        found = asked.explainer.maps(self.modality, method, scene.items, to)
        return found if EXPLANATIONS[method].cosine else [grounding.scaled(m) for m in found]

    def random(self, asked: Asked) -> Grounded:
        """Of a random number for each token."""
        count = [a.count for a in asked.explainer.axes(self.modality)]

        def one(item: Item) -> np.ndarray:
            tokens = np.random.default_rng([0, item.row]).random(count)
            return grounding.scaled(asked.explainer.on_input(self.modality, "random", tokens, item))

        return self._scored(lambda scene: [one(item) for item in scene.items])

    def centre(self) -> Grounded:
        """Of a blot in the middle."""
        return self._scored(lambda scene: [grounding.centre_prior(r.shape) for r in scene.regions])

    def _scored(self, maps_of: Callable[[Scene], Maps]) -> Grounded:
        weights = patient_weights(self.scene.studies.table.patients)[:, self.scene.at]
        known = None
        if self.validation is not None and len(self.validation.at):
            known = maps_of(self.validation), self.validation.regions
        return score(maps_of(self.scene), self.scene.regions, weights, known)


def ground(one: Grounding, asked: Asked, before: Asked, methods: Sequence[str]) -> dict[str, dict[str, Grounded]]:
    """`{method: {"trained" and each of CONTROLS: scores}}`. before: the encoder before training."""
    random, centre = one.random(asked), one.centre()
    return {
        method: {
            "trained": one.score(asked, method),
            "random": random,
            "centre": centre,
            "untrained": one.score(before, method),
            "wrong prompt": one.score(asked, method, wrong=True),
        }
        for method in methods
    }
