"""What objectives over pairs of modalities share: which pairs, their weights, and how scores are read off them."""

from dataclasses import dataclass, replace
from itertools import combinations

import jax

from medjax.errors import UserError, check_choice, suggest
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Settings, mean_of_products
from medjax.losses.relations import Relation
from medjax.losses.similarity import dot
from medjax.losses.statistics import Stats


@dataclass(frozen=True)
class Pairwise(Formula):
    """A sum over pairs (x, y) of modalities. A subclass gives the terms of one pair.

    A row counts for a pair where both of its modalities are present, and meets the keys whose own modality is present.
    `missing="neutral"` is the same as "mask": an absent row enters nothing.

    pairs: which pairs of modalities; default all of them. weights: one for each pair; default 1.
    reduction: "mean" over pairs, or "sum".
    """

    pairs: tuple[tuple[str, str], ...] | None = None
    weights: tuple[float, ...] | None = None
    reduction: str = "mean"

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or a wrong number of weights."""
        check_choice("reduction", self.reduction, ("mean", "sum"))
        if len(modalities) < 2:
            raise UserError(f"a pairwise objective compares modalities and got only {modalities}; give at least two")
        for name in (m for pair in self.pairs or () for m in pair):
            if name not in modalities:
                raise UserError(f"pairs name the unknown modality {name!r}; {suggest(name, modalities)}")
        if self.weights is not None and len(self.weights) != len(self.pairs_of(modalities)):
            raise UserError(f"there are {len(self.weights)} weights for pairs {self.pairs_of(modalities)}")

    def pairs_of(self, modalities: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Those of the options, else all."""
        return tuple(tuple(p) for p in self.pairs) if self.pairs else tuple(combinations(modalities, 2))

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """The terms of one pair; their weights add up to that of the pair before `weights`."""
        raise NotImplementedError

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """The terms of every pair."""
        pairs = self.pairs_of(tuple(inputs.embeddings))
        out = {}
        for (x, y), weight in zip(pairs, self.weights or (1.0,) * len(pairs), strict=True):
            terms = self.pair(inputs, settings, x, y)
            out |= {k: replace(term, weight=weight * term.weight) for k, term in terms.items()}
        return out

    def score(self, queries, candidates, target, logit_scale, present, modalities) -> jax.Array:
        """Mean over the present query modalities that are paired with the target, of the pair's logits."""
        partners = {m for pair in self.pairs_of(modalities) if target in pair for m in pair}
        queries = {m: x for m, x in queries.items() if m in partners}
        return mean_of_products(queries, candidates, logit_scale, present)


def reduce_dot(
    inputs: Inputs, settings: Settings, x: str, y: str, *, scale=None, rows=None, **options
) -> tuple[Stats, Stats]:
    """Statistics of `S[i, j] = scale * <x_i, y_j>` by rows and by columns.

    scale: default the logit scale. rows: further metadata of every row, for a relation that asks for it.
    """
    meta = [settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name) | (rows or {}) for m in (x, y)]
    theta = {"scale": inputs.logit_scale if scale is None else scale}
    return settings.reduce(dot, theta, inputs.embeddings[x], inputs.embeddings[y], *meta, inputs.axis_name, **options)


@dataclass(frozen=True)
class Negatives:
    """A relation in which the answers are no candidates: the log-sum-exp runs over the negatives alone."""

    relation: Relation

    def __call__(self, queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
        """`(allowed bool[q, k], positive float32[q, k])`, which share no pair."""
        allowed, positive = self.relation(queries, keys)
        return allowed & (positive == 0), positive
