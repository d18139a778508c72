"""From raw items to maps on them: which explanation fits which encoder, in batches, back in the input's geometry."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from medjax.data.batch import Batch, Items
from medjax.data.examples import stack
from medjax.data.transforms import Transform
from medjax.evaluation.explain.geometry import pixel_axes, placements, to_input, token_axes
from medjax.evaluation.explain.gradient_attention import gradient_attention
from medjax.evaluation.explain.gradients import grad_cam, integrated_gradients
from medjax.evaluation.explain.inside import Encode, Inside
from medjax.evaluation.explain.m2ib import m2ib
from medjax.evaluation.explain.rollout import rollout
from medjax.evaluation.explain.similarity_maps import similarity_map, smoothed, token_space


@dataclass(frozen=True)
class Explanation:
    """make: (inside, params, batch, target) -> map. fits: whether it can be had of an encoder. words: what it is, for
    a report. signed: whether it speaks for and against. cosine: whether its numbers mean the same on every input.
    """

    make: Callable
    fits: Callable[[Inside], bool]
    words: str
    signed: bool = False
    cosine: bool = False


def _has_blocks(inside: Inside) -> bool:
    return inside.blocks > 0


EXPLANATIONS = {
    "similarity": Explanation(
        similarity_map,
        lambda inside: inside.config.name != "mlp",
        "similarity of each token to the target",
        signed=True,
        cosine=True,
    ),
    "gradient_attention": Explanation(
        gradient_attention, _has_blocks, "attention weighted by its effect on the score (Chefer et al.)"
    ),
    "rollout": Explanation(rollout, _has_blocks, "attention rollout; it does not depend on what is asked"),
    "grad_cam": Explanation(grad_cam, lambda inside: inside.stages > 0, "Grad-CAM of the last stage"),
    "integrated_gradients": Explanation(
        integrated_gradients, lambda _: True, "integrated gradients from an input of zeros", signed=True
    ),
    "m2ib": Explanation(
        m2ib, lambda inside: inside.blocks + inside.stages > 0, "information that the score needs (M2IB), in nats"
    ),
}
ALWAYS = "integrated_gradients"


@dataclass(frozen=True)
class Item:
    """One input. row: its study's position in the split. raw: as the transform takes it."""

    row: int
    raw: Any


class Explainer:
    """Explanations of one encoder's modalities.

    encode: see `Inside`. modules: `{modality: tower}`, plain. params: what `encode` takes, (parameters, state).
    smooth: spread in patches of a Gaussian over similarity maps, 0 for none. seed: of M2IB's noise.
    """

    def __init__(
        self,
        encode: Encode,
        modules: Mapping[str, Any],
        transforms: Mapping[str, Transform],
        params: Any,
        smooth: float = 0.0,
        seed: int = 0,
        batch_size: int = 16,
    ):
        self._encode, self._modules, self._transforms, self._params = encode, modules, transforms, params
        self._smooth, self._seed, self._batch = smooth, seed, batch_size
        self._compiled: dict[tuple[str, str], Callable] = {}

    def of(self, params: Any) -> "Explainer":
        """The same of other parameters of the same shapes; it shares what this one compiles."""
        other = copy.copy(self)
        other._params = params
        return other

    def inside(self, modality: str) -> Inside:
        """One modality's encoder."""
        return Inside(self._encode, modality, self._modules[modality].config)

    def fitting(self, modality: str, asked: Sequence[str]) -> list[str]:
        """Of the explanations asked for those that fit the modality's encoder; if none does, one that fits all."""
        inside = self.inside(modality)
        return [k for k in asked if EXPLANATIONS[k].fits(inside)] or [ALWAYS]

    def token_space(self, modality: str) -> str:
        """How its tokens come into the joint space for similarity maps."""
        return token_space(self.inside(modality), self._params)

    def tokens(self, modality: str, method: str, items: Sequence[Item], target_ne: np.ndarray) -> np.ndarray:
        """float32[n, ...]: the explanation of every item, one number a token (of integrated gradients a pixel).

        target: float32[n, E], see `Inside`.
        """
        found = []
        for first in range(0, len(items), self._batch):
            some = list(items[first : first + self._batch])
            short = self._batch - len(some)
            batch = self._batch_of(modality, some, short)
            target = np.pad(target_ne[first : first + self._batch], ((0, short), (0, 0)))
            found.append(np.asarray(self._explain(modality, method)(self._params, batch, target))[: len(some)])
        return np.concatenate(found)

    def maps(self, modality: str, method: str, items: Sequence[Item], target_ne: np.ndarray) -> list[np.ndarray]:
        """The same on the items themselves, float32 of each one's shape: pixels, voxels, leads and samples, lab values;
        of a text its tokens. NaN is what the encoder did not see."""
        tokens = self.tokens(modality, method, items, target_ne)
        return [self.on_input(modality, method, x, item) for x, item in zip(tokens, items, strict=True)]

    def on_input(self, modality: str, method: str, tokens: np.ndarray, item: Item) -> np.ndarray:
        """One map of `tokens` on its item."""
        transform = self._transforms[modality]
        if transform.kind == "text":
            return tokens.reshape(-1)
        axes = pixel_axes(tokens.shape) if method == ALWAYS else self.axes(modality)
        if method == "similarity" and self._smooth:
            tokens = smoothed(tokens.reshape([a.count for a in axes]), self._smooth)
        return to_input(tokens, axes, placements(transform, item.raw))

    def axes(self, modality: str):
        """The grid of the tokens of a modality."""
        return token_axes(self._modules[modality], self._transforms[modality].empty())

    def _explain(self, modality: str, method: str) -> Callable:
        if (modality, method) not in self._compiled:
            options = {"seed": self._seed} if method == "m2ib" else {}
            make = partial(EXPLANATIONS[method].make, self.inside(modality), **options)
            self._compiled[modality, method] = jax.jit(make)
        return self._compiled[modality, method]

    def _batch_of(self, modality: str, items: Sequence[Item], short: int) -> Batch:
        transform = self._transforms[modality]
        arrays = [transform.finish(transform.prepare(item.raw), None) for item in items]
        value = jax.tree.map(lambda x: x[:, None], stack(arrays + [transform.empty()] * short))
        n = len(items) + short
        row = np.array([item.row for item in items] + [0] * short, np.int32)
        there = {modality: Items(value, np.ones((n, 1), bool))}
        return Batch(there, {}, np.zeros(n, np.float32), np.ones(n, bool), {}, row)
