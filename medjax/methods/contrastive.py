"""Contrastive pre-training: towers, projections, and a weighted sum of objectives with learnable scales."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp

from medjax import losses
from medjax.config import build
from medjax.data.batch import Batch
from medjax.errors import UserError
from medjax.losses import Loss, Objective
from medjax.methods.base import Encoded, Params, Scorer, State
from medjax.methods.towers import Towers, unflatten
from medjax.models.heads import Head, HeadConfig, unit
from medjax.models.layers import masked_mean
from medjax.models.partitioning import logical_specs, unbox
from medjax.sharding import current_batch_axes


@dataclass(frozen=True)
class TermConfig:
    """One objective of the sum; further keys are the objective's own options (see `medjax.losses`).

    name: of the objective, by default the key of the term. weight: in the sum. modalities: which it uses, default all
    towers. scale: the logit scale to start from, max_scale: where it is clamped (0: nowhere); by default the
    objective's. learn_scale: false keeps it fixed.
    """

    name: str
    weight: float = 1.0
    modalities: tuple[str, ...] | None = None
    scale: float | None = None
    max_scale: float | None = None
    learn_scale: bool = True

    def __post_init__(self):
        if self.scale is not None and self.scale <= 0:
            raise UserError(
                f"the scale of objective {self.name!r} is a multiplier and must be positive, got {self.scale}"
            )
        if self.max_scale is not None and self.max_scale < 0:
            raise UserError(
                f"max_scale of objective {self.name!r} must be positive, or 0 for none, got {self.max_scale}"
            )


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
class _Term:
    config: TermConfig
    objective: Objective

    @property
    def init_scale(self) -> float:
        return self.config.scale or self.objective.scale.init

    @property
    def max_scale(self) -> float | None:
        limit = self.config.max_scale
        return self.objective.scale.maximum if limit is None else (limit or None)


@dataclass(frozen=True)
class Contrastive:
    """See `medjax.methods.base.Method`. Parameters: "towers", "heads", "objectives" (`{term: {"log_scale"}}`)."""

    config: ContrastiveConfig
    towers: Towers
    terms: Mapping[str, _Term]

    @classmethod
    def create(cls, options: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> "Contrastive":
        """From `config.method` and the preprocessing of each modality."""
        config = build(ContrastiveConfig, options, "config.method")
        towers = Towers.create(config.towers, specs)
        if not config.objectives:
            raise UserError(f"config.method.objectives is empty; valid: {', '.join(sorted(losses.OBJECTIVES))}")
        terms = {k: _make_term(k, config.objectives[k], tuple(towers.modules)) for k in sorted(config.objectives)}
        return cls(config, towers, terms)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those with a tower."""
        return tuple(self.towers.modules)

    def _head(self, modality: str) -> Head:
        return Head(self.config.heads.get(modality, self.config.head), self.config.embed_dim)

    def _init(self, key: jax.Array, batch: Batch) -> Params:
        towers = self.towers.init(key, batch)
        heads = {}
        for i, m in enumerate(self.modalities):
            features = self.towers.apply(unbox(towers), m, batch, None, False)
            head = self._head(m)
            heads[m] = head.init(jax.random.fold_in(key, 1000 + i), features.pooled)["params"]
            if head.config.centre:
                projected = head.apply({"params": unbox(heads[m])}, features.pooled)
                mean = masked_mean(projected[None], batch.items[m].mask.reshape(1, -1))[0]
                bias = heads[m]["out"]["bias"]
                heads[m]["out"]["bias"] = jax.tree.map(lambda _, mean=mean: -mean, bias)
        scales = {k: {"log_scale": jnp.float32(math.log(term.init_scale))} for k, term in self.terms.items()}
        return {"towers": towers, "heads": heads, "objectives": scales}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, State]:
        """Fresh parameters; there is no state."""
        return unbox(self._init(key, batch)), {}

    def logical_axes(self, batch: Batch) -> Params:
        """See `Method`."""
        return logical_specs(jax.eval_shape(lambda: self._init(jax.random.key(0), batch)))

    def encode(self, params: Params, state: State, batch: Batch, key: jax.Array | None, train: bool) -> Encoded:
        """Projected items, and pooled embeddings as the mean over a study's items, normalised."""
        pooled, items = {}, {}
        for i, m in enumerate(self.modalities):
            if m not in batch.items:
                continue
            rng = None if key is None else jax.random.fold_in(key, i)
            features = self.towers.apply(params["towers"], m, batch, rng, train)
            projected = self._head(m).apply({"params": params["heads"][m]}, features.pooled)
            item = unflatten(projected, batch.items[m])
            mean = masked_mean(item, batch.items[m].mask)
            normalise = self._head(m).config.normalise
            items[m] = unit(item) if normalise else item
            pooled[m] = unit(mean) if normalise else mean
        masks = {m: batch.items[m].mask for m in pooled}
        present = {m: batch.items[m].present for m in pooled}
        return Encoded(pooled=pooled, present=present, items=items, item_mask=masks)

    def objective(
        self, encoded: Encoded, params: Params, state: State, batch: Batch, key: jax.Array
    ) -> tuple[Loss, State]:
        """The weighted sum of the terms."""
        parts = {}
        for i, (name, term) in enumerate(self.terms.items()):
            log_scale = params["objectives"][name]["log_scale"]
            if not term.config.learn_scale:
                log_scale = jax.lax.stop_gradient(log_scale)
            loss = term.objective(
                encoded.pooled,
                logit_scale=jnp.exp(log_scale),
                present=encoded.present,
                ids=batch.ids,
                targets=batch.targets,
                key=jax.random.fold_in(key, i),
                batch_axes=current_batch_axes(),
            )
            parts[name] = (term.config.weight, loss)
        return Loss.sum(parts), state

    def after_update(self, params: Params, state: State) -> tuple[Params, State]:
        """Clamps the scales, as OpenCLIP does."""
        scales = {}
        for name, term in self.terms.items():
            log_scale = params["objectives"][name]["log_scale"]
            if term.max_scale:
                log_scale = jnp.minimum(log_scale, math.log(term.max_scale))
            scales[name] = {"log_scale": log_scale}
        return {**params, "objectives": scales}, state

    def scorer(self, params: Params) -> Scorer:
        """The sum of the terms' logits, each at its own scale and weight: what the sum of losses has learnt."""
        scales = {k: float(jnp.exp(params["objectives"][k]["log_scale"])) for k in self.terms}

        def score(queries, candidates, target, present):
            total = jnp.float32(0.0)
            for name, term in self.terms.items():
                logits = term.objective.score(queries, candidates, target, logit_scale=scales[name], present=present)
                total = total + term.config.weight * logits
            return total

        return score


def _make_term(key: str, options: Mapping[str, Any], modalities: tuple[str, ...]) -> _Term:
    known = {f.name for f in fields(TermConfig)}
    config = build(
        TermConfig, {"name": key, **{k: v for k, v in options.items() if k in known}}, f"config.method.objectives.{key}"
    )
    own = {k: v for k, v in options.items() if k not in known}
    names = config.modalities or modalities
    for m in names:
        if m not in modalities:
            raise UserError(f"config.method.objectives.{key}: no tower encodes {m!r}; towers: {', '.join(modalities)}")
    try:
        objective = losses.get(config.name, modalities=names, **own)
    except UserError as error:
        raise UserError(f"config.method.objectives.{key}: {error}") from None
    return _Term(config, objective)
