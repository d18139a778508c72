"""InfoNCE over any set of pairs of modalities: CLIP, ConVIRT's symmetric form, Symile's pairwise baseline."""

from dataclasses import dataclass
from itertools import combinations

import jax

from medjax.errors import UserError, check_choice, suggest
from medjax.losses.base import Term
from medjax.losses.objective import Formula, Inputs, Settings, cross_entropy, mean_of_products
from medjax.losses.similarity import dot


@dataclass(frozen=True)
class InfoNCE(Formula):
    """`1/2 mean_i [ -log softmax_j(s <x_i, y_j>)_i ] + 1/2` the same with x and y exchanged, for every pair (x, y).

    arXiv 2103.00020 (CLIP), figure 3. A row counts for a pair where both of its modalities are present, and meets the
    keys whose own modality is present. `missing="neutral"` is the same as "mask": an absent row enters nothing.

    pairs: which pairs of modalities; default all of them. weights: one for each pair; default 1.
    reduction: "mean" over pairs, or "sum" (Symile's pairwise baseline, rajesh-lab/symile).
    """

    pairs: tuple[tuple[str, str], ...] | None = None
    weights: tuple[float, ...] | None = None
    reduction: str = "mean"

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or a wrong number of weights."""
        check_choice("reduction", self.reduction, ("mean", "sum"))
        if len(modalities) < 2:
            raise UserError(f"info_nce compares modalities and got only {modalities}; give at least two")
        for name in (m for pair in self.pairs or () for m in pair):
            if name not in modalities:
                raise UserError(f"info_nce pairs name the unknown modality {name!r}; {suggest(name, modalities)}")
        if self.weights is not None and len(self.weights) != len(self._pairs(modalities)):
            raise UserError(f"info_nce got {len(self.weights)} weights for pairs {self._pairs(modalities)}")

    def _pairs(self, modalities: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        return tuple(tuple(p) for p in self.pairs) if self.pairs else tuple(combinations(modalities, 2))

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term for each direction of each pair."""
        pairs = self._pairs(tuple(inputs.embeddings))
        weights = self.weights or (1.0,) * len(pairs)
        out = {}
        for (x, y), weight in zip(pairs, weights, strict=True):
            meta = [settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name) for m in (x, y)]
            rows, columns = settings.reduce(
                dot, {"scale": inputs.logit_scale}, inputs.embeddings[x], inputs.embeddings[y], *meta, inputs.axis_name
            )
            out[f"{x}_to_{y}"] = cross_entropy(rows, weight / 2)
            out[f"{y}_to_{x}"] = cross_entropy(columns, weight / 2)
        return out

    def score(self, queries, candidates, target, logit_scale, present, modalities) -> jax.Array:
        """Mean over the present query modalities that are paired with the target, of the pair's logits."""
        partners = {m for pair in self._pairs(modalities) if target in pair for m in pair}
        queries = {m: x for m, x in queries.items() if m in partners}
        return mean_of_products(queries, candidates, logit_scale, present)
