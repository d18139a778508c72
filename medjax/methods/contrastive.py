"""Contrastive pre-training: towers, projections, and a weighted sum of objectives with learnable scales."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from medjax.config import build
from medjax.data.batch import Batch
from medjax.losses import Loss
from medjax.methods.base import Encoded, Params, Scorer, State
from medjax.methods.terms import Terms
from medjax.methods.towers import Towers, unflatten
from medjax.models.heads import Head, HeadConfig, unit
from medjax.models.layers import masked_mean
from medjax.models.partitioning import logical_specs, unbox


@dataclass(frozen=True)
class ContrastiveConfig:
    """towers: `{modality: encoder options}`. objectives: `{term: TermConfig and options}`. embed_dim: E.
    head: of every modality; heads: `{modality: head options}` where they differ.
    """

    towers: dict[str, dict[str, Any]]
    objectives: dict[str, dict[str, Any]]
    embed_dim: int = 128
    head: HeadConfig = field(default_factory=HeadConfig)
    heads: dict[str, HeadConfig] = field(default_factory=dict)
    name: str = "contrastive"


@dataclass(frozen=True)
class Contrastive:
    """See `medjax.methods.base.Method`. Parameters: "towers", "heads", those of `Terms`, and "token_heads" for the
    modalities whose tokens an objective compares.
    """

    config: ContrastiveConfig
    towers: Towers
    terms: Terms

    @classmethod
    def create(cls, options: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> "Contrastive":
        """From `config.method` and the preprocessing of each modality."""
        config = build(ContrastiveConfig, options, "config.method")
        towers = Towers.create(config.towers, specs)
        return cls(config, towers, Terms.create(config.objectives, tuple(towers.modules)))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those with a tower."""
        return tuple(self.towers.modules)

    def _head(self, modality: str) -> Head:
        return Head(self.config.heads.get(modality, self.config.head), self.config.embed_dim)

    @property
    def _token_head(self) -> Head:
        return Head(HeadConfig(), self.config.embed_dim)

    def _init(self, key: jax.Array, batch: Batch) -> Params:
        towers = self.towers.init(key, batch)
        heads, token_heads = {}, {}
        for i, m in enumerate(self.modalities):
            features = self.towers.apply(unbox(towers), m, batch, None, False)
            head = self._head(m)
            heads[m] = head.init(jax.random.fold_in(key, 1000 + i), features.pooled)["params"]
            if head.config.centre:
                projected = head.apply({"params": unbox(heads[m])}, features.pooled)
                mean = masked_mean(projected[None], batch.items[m].mask.reshape(1, -1))[0]
                bias = heads[m]["out"]["bias"]
                heads[m]["out"]["bias"] = jax.tree.map(lambda _, mean=mean: -mean, bias)
            if m in self.terms.with_tokens:
                rng = jax.random.fold_in(key, 2000 + i)
                token_heads[m] = self._token_head.init(rng, features.tokens)["params"]
        learnt = self.terms.init(jax.random.fold_in(key, 3000), self.config.embed_dim)
        return {"towers": towers, "heads": heads, **({"token_heads": token_heads} if token_heads else {}), **learnt}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, State]:
        """Fresh parameters; there is no state."""
        return unbox(self._init(key, batch)), {}

    def logical_axes(self, batch: Batch) -> Params:
        """See `Method`."""
        return logical_specs(jax.eval_shape(lambda: self._init(jax.random.key(0), batch)))

    def encode(self, params: Params, state: State, batch: Batch, key: jax.Array | None, train: bool) -> Encoded:
        """Projected items, and pooled embeddings as the mean over a study's items, normalised; tokens if compared."""
        pooled, items, tokens, token_mask = {}, {}, {}, {}
        for i, m in enumerate(self.modalities):
            if m not in batch.items:
                continue
            rng = None if key is None else jax.random.fold_in(key, i)
            features = self.towers.apply(params["towers"], m, batch, rng, train)
            projected = self._head(m).apply({"params": params["heads"][m]}, features.pooled)
            item, mask = unflatten(projected, batch.items[m]), batch.items[m].mask
            mean = masked_mean(item, mask)
            normalise = self._head(m).config.normalise
            items[m] = unit(item) if normalise else item
            pooled[m] = unit(mean) if normalise else mean
            if m in params.get("token_heads", {}):  # an export leaves them behind
                projected = self._token_head.apply({"params": params["token_heads"][m]}, features.tokens)
                tokens[m] = unflatten(unit(projected), batch.items[m])
                token_mask[m] = unflatten(features.token_mask, batch.items[m]) & mask[..., None]
        masks = {m: batch.items[m].mask for m in pooled}
        present = {m: batch.items[m].present for m in pooled}
        return Encoded(pooled, present, items, masks, tokens, token_mask)

    def objective(
        self, encoded: Encoded, params: Params, state: State, batch: Batch, key: jax.Array
    ) -> tuple[Loss, State]:
        """The weighted sum of the terms."""
        return self.terms(encoded, params, batch, key), state

    def after_update(self, params: Params, state: State) -> tuple[Params, State]:
        """Clamps the scales."""
        return self.terms.clamp(params), state

    def scorer(self, params: Params) -> Scorer:
        """See `Terms.scorer`."""
        return self.terms.scorer(params)
