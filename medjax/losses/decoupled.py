"""Contrastive losses without the answer in the denominator: DCL, and DHN-NCE, which weighs hard negatives up."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Scale, Settings
from medjax.losses.pairwise import Negatives, Pairwise, reduce_dot
from medjax.losses.statistics import Stats


@dataclass(frozen=True)
class Decoupled(Pairwise):
    """`mean_i [ -s_ii + log sum_{j != i} exp(s_ij) ]`, half in each direction, with s_ij = s <x_i, y_j>.

    DCL, arXiv 2110.06848: the gradient no longer fades as the answer wins. A row without any negative
    counts nothing. Several answers enter by their mean.
    """

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term for each direction."""
        both = reduce_dot(inputs, settings, x, y, relation=Negatives(settings.relation))
        rows, columns = (_mean(stats, stats.lse - _answer(stats), 0.5) for stats in both)
        return {f"{x}_to_{y}": rows, f"{y}_to_{x}": columns}


@dataclass(frozen=True)
class DHNNCE(Pairwise):
    """`mean_i [ -s_ii + log sum_{j != i} w_ij exp(s_ij) ]` plus the same from y to x.

    `w_ij = n_i exp(beta s_ij) / sum_{k != i} exp(beta s_ik)` over the n_i negatives of row i: HN-NCE (arXiv
    2301.02280) without the answer in its denominator, the loss of MedCLIP-SAM (arXiv 2403.20253) as others have
    re-implemented it; the paper itself could not be read. In logarithms
    `log n_i + LSE((1 + beta) s) - LSE(beta s)`; the weights are differentiated too. beta = 0 is `decoupled`, summed.

    variant="released" is what MedCLIP-SAM's `loss/hnl.py` computes: the logarithm is taken of each entry and averaged,
    and the weights are normalised by `Z_i = 1 + sum_{k != i} exp(s_ik)`, so that a direction is
    `mean_i [ -s_ii + (1 + beta) sum_{j != i} s_ij ] / B + log(B - 1) - mean_i log Z_i`, which pulls hard negatives
    closer.

    beta: for x to y and y to x. alpha: share of the answer put back into the denominator.
    """

    reduction: str = "sum"
    beta: tuple[float, float] = (0.15, 0.15)
    alpha: float = 0.0
    variant: str = "paper"

    scale: ClassVar[Scale] = Scale(init=1 / 0.6, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for values outside their range."""
        super().check(modalities)
        check_choice("dhn_nce variant", self.variant, ("paper", "released"))
        if len(self.beta) != 2 or min(self.beta) < 0 or self.alpha < 0:
            raise UserError(f"dhn_nce needs two beta >= 0 and alpha >= 0, got {self.beta} and {self.alpha}")
        if self.variant == "released" and self.alpha:
            raise UserError("dhn_nce's released variant has no alpha; leave it 0")

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term for each direction."""
        relation = Negatives(settings.relation)
        if self.variant == "released":
            both = reduce_dot(inputs, settings, x, y, relation=relation, wanted=("lse", "positive", "total"))
            terms = [_released(stats, beta) for stats, beta in zip(both, self.beta, strict=True)]
        else:
            terms = self._published(inputs, settings, x, y, relation)
        return {f"{x}_to_{y}": terms[0], f"{y}_to_{x}": terms[1]}

    def _published(self, inputs: Inputs, settings: Settings, x: str, y: str, relation: Negatives) -> list[Term]:
        plain = reduce_dot(inputs, settings, x, y, relation=relation)
        powers = {power for beta in self.beta if beta for power in (beta, 1 + beta)}
        tilted = {
            power: reduce_dot(
                inputs, settings, x, y, scale=power * inputs.logit_scale, relation=relation, wanted=("lse",)
            )
            for power in sorted(powers)
        }
        terms = []
        for side, (stats, beta) in enumerate(zip(plain, self.beta, strict=True)):
            hard = stats.lse
            if beta:
                weights = tilted[1 + beta][side].lse - tilted[beta][side].lse
                hard = jnp.log(jnp.maximum(stats.count, 1.0)) + weights
            if self.alpha:
                hard = jnp.logaddexp(hard, math.log(self.alpha) + _answer(stats))
            terms.append(_mean(stats, hard - _answer(stats), 1.0))
        return terms


def _released(stats: Stats, beta: float) -> Term:
    rows = stats.count + 1.0
    value = ((1 + beta) * stats.total - _answer(stats)) / rows
    value += jnp.log(jnp.maximum(stats.count, 1.0)) - jax.nn.softplus(stats.lse)
    return _mean(stats, value, 1.0)


def _answer(stats: Stats) -> jax.Array:
    return stats.positive / jnp.where(stats.weight > 0, stats.weight, 1.0)


def _mean(stats: Stats, value: jax.Array, weight: float) -> Term:
    """Over rows that have both an answer and a negative."""
    valid = (stats.weight > 0) & (stats.count > 0)
    return Term(jnp.sum(jnp.where(valid, value, 0.0)), valid.sum().astype(jnp.float32), weight)
