"""Contrastive pre-training: towers, projections, and a weighted sum of objectives with learnable scales."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from medjax.config import build
from medjax.data.batch import Batch
from medjax.errors import UserError
from medjax.losses import Loss
from medjax.methods.base import Encoded, Params, Scorer, State
from medjax.methods.pooling import Pooling, hide_modalities
from medjax.methods.terms import Terms
from medjax.methods.towers import Towers, unflatten
from medjax.models import Features
from medjax.models.aggregation import PoolConfig
from medjax.models.heads import Head, HeadConfig, unit
from medjax.models.layers import masked_mean
from medjax.models.partitioning import logical_specs, unbox


@dataclass(frozen=True)
class ContrastiveConfig:
    """towers: `{modality: encoder options}`. objectives: `{term: TermConfig and options}`. embed_dim: E.
    head: of every modality; heads: `{modality: head options}` where they differ. pooling: `{modality: options}` of how
    the items of a study become one, by default the mean of their projections. modality_dropout: probability with which
    a modality of a study is hidden in training, never the last one.
    """

    towers: dict[str, dict[str, Any]]
    objectives: dict[str, dict[str, Any]]
    embed_dim: int = 128
    head: HeadConfig = field(default_factory=HeadConfig)
    heads: dict[str, HeadConfig] = field(default_factory=dict)
    pooling: dict[str, PoolConfig] = field(default_factory=dict)
    modality_dropout: float = 0.0
    name: str = "contrastive"

    def __post_init__(self):
        if not 0.0 <= self.modality_dropout < 1.0:
            raise UserError(f"config.method.modality_dropout={self.modality_dropout} must be in [0, 1)")


@dataclass(frozen=True)
class Contrastive:
    """See `medjax.methods.base.Method`. Parameters: "towers", "lora" of those that are adapted, "heads", those of
    `Terms`, "token_heads" for the modalities whose tokens an objective compares, and "pooling" for those whose items a
    module pools.
    """

    config: ContrastiveConfig
    towers: Towers
    terms: Terms
    pooling: Pooling

    @classmethod
    def create(cls, options: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> "Contrastive":
        """From `config.method` and the preprocessing of each modality."""
        config = build(ContrastiveConfig, options, "config.method")
        towers = Towers.create(config.towers, specs)
        modalities = tuple(towers.modules)
        terms, pooling = Terms.create(config.objectives, modalities), Pooling.create(config.pooling, modalities)
        return cls(config, towers, terms, pooling)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those with a tower."""
        return tuple(self.towers.modules)

    def _head(self, modality: str) -> Head:
        return Head(self.config.heads.get(modality, self.config.head), self.config.embed_dim)

    @property
    def _token_head(self) -> Head:
        return Head(HeadConfig(), self.config.embed_dim)

    def _init(self, key: jax.Array, batch: Batch) -> tuple[Params, State]:
        towers, stats = self.towers.init(key, batch)
        heads, token_heads, pooling = {}, {}, {}
        for i, m in enumerate(self.modalities):
            # Batch statistics as in training: the running ones know nothing yet.
            features, _ = self.towers.apply(
                {"towers": unbox(towers)}, stats, m, batch, jax.random.fold_in(key, 4000 + i), m in stats
            )
            head = self._head(m)
            heads[m] = head.init(jax.random.fold_in(key, 1000 + i), features.pooled)["params"]
            if head.config.centre:
                mean = self._mean(unbox(heads[m]), m, features, batch)
                bias = heads[m]["out"]["bias"]
                heads[m]["out"]["bias"] = jax.tree.map(lambda _, mean=mean: -mean, bias)
            if m in self.terms.with_tokens:
                rng = jax.random.fold_in(key, 2000 + i)
                token_heads[m] = self._token_head.init(rng, features.patches)["params"]
            if m in self.pooling.modules:
                rng, x = jax.random.fold_in(key, 5000 + i), unflatten(features.pooled, batch.items[m])
                pooling[m] = self.pooling.init(rng, m, x, batch.items[m].mask)
        learnt = self.terms.init(jax.random.fold_in(key, 3000), self.config.embed_dim)
        extra = {k: v for k, v in (("token_heads", token_heads), ("pooling", pooling)) if v}
        extra |= self.towers.init_lora(key, batch, towers)
        params = {"towers": towers, "heads": heads, **extra, **learnt}
        return params, {"batch_stats": stats} if stats else {}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, State]:
        """Fresh parameters, and the batch statistics of the towers that keep any."""
        return unbox(self._init(key, batch))

    def _mean(self, head: Params, modality: str, features: Features, batch: Batch) -> jax.Array:
        """float32[E], of what a head makes of the items that are present."""
        projected = self._head(modality).apply({"params": head}, features.pooled)
        return masked_mean(projected[None], batch.items[modality].mask.reshape(1, -1))[0]

    def centre(self, params: Params, state: State, batch: Batch, modalities: tuple[str, ...]) -> Params:
        """Heads with `centre` project the items of `batch` to a mean of zero, as those of `init` do."""
        heads = dict(params["heads"])
        for m in modalities:
            if self._head(m).config.centre:
                features, _ = self.towers.apply(params, state.get("batch_stats", {}), m, batch, None, False)
                out = heads[m]["out"]
                bias = out["bias"] - self._mean(heads[m], m, features, batch)
                heads[m] = {**heads[m], "out": {**out, "bias": bias}}
        return {**params, "heads": heads}

    def logical_axes(self, batch: Batch) -> Params:
        """See `Method`."""
        return logical_specs(jax.eval_shape(lambda batch: self._init(jax.random.key(0), batch)[0], batch))

    def encode(self, params: Params, state: State, batch: Batch, key: jax.Array | None, train: bool) -> Encoded:
        """Projected items, one embedding of each study, normalised; tokens if compared."""
        if train and key is not None and self.config.modality_dropout:
            rng = jax.random.fold_in(key, len(self.modalities))
            batch = hide_modalities(batch, self.modalities, rng, self.config.modality_dropout)
        pooled, items, tokens, token_mask, updates = {}, {}, {}, {}, {}
        for i, m in enumerate(self.modalities):
            if m not in batch.items:
                continue
            rng = None if key is None else jax.random.fold_in(key, i)
            stats = state.get("batch_stats", {})
            features, changed = self.towers.apply(params, stats, m, batch, rng, train)
            updates |= changed
            projected = self._head(m).apply({"params": params["heads"][m]}, features.pooled)
            item, mask = unflatten(projected, batch.items[m]), batch.items[m].mask
            whole = masked_mean(item, mask)
            if m in self.pooling.modules:
                x = self.pooling.apply(params["pooling"], m, unflatten(features.pooled, batch.items[m]), mask)
                projected = self._head(m).apply({"params": params["heads"][m]}, x)
                whole = jnp.where(batch.items[m].present[:, None], projected, 0)
            normalise = self._head(m).config.normalise
            items[m] = unit(item) if normalise else item
            pooled[m] = unit(whole) if normalise else whole
            if m in params.get("token_heads", {}):  # an export leaves them behind
                projected = self._token_head.apply({"params": params["token_heads"][m]}, features.patches)
                tokens[m] = unflatten(unit(projected), batch.items[m])
                token_mask[m] = unflatten(features.patch_mask, batch.items[m]) & mask[..., None]
        masks = {m: batch.items[m].mask for m in pooled}
        present = {m: batch.items[m].present for m in pooled}
        return Encoded(pooled, present, items, masks, tokens, token_mask, updates=updates)

    def objective(
        self, encoded: Encoded, params: Params, state: State, batch: Batch, key: jax.Array
    ) -> tuple[Loss, State]:
        """The weighted sum of the terms; the state takes what encoding changed."""
        if encoded.updates:
            state = {**state, "batch_stats": {**state["batch_stats"], **encoded.updates}}
        return self.terms(encoded, params, batch, key), state

    def after_update(self, params: Params, state: State) -> tuple[Params, State]:
        """Clamps the scales."""
        return self.terms.clamp(params), state

    def scorer(self, params: Params) -> Scorer:
        """See `Terms.scorer`."""
        return self.terms.scorer(params)
