"""The objectives of a contrastive recipe: their weighted sum, and what they learn beside the encoders."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp

from medjax import losses
from medjax.config import build
from medjax.errors import UserError, check_choice, suggest
from medjax.losses import Loss, Objective, Tokens
from medjax.methods.base import Encoded, Params, Scorer
from medjax.methods.item_ids import content_ids
from medjax.models.heads import unit
from medjax.sharding import current_batch_axes


@dataclass(frozen=True)
class TermConfig:
    """One objective of the sum; further keys are the objective's own options (see `medjax.losses`).

    name: of the objective, by default the key of the term. weight: in the sum. modalities: which it uses, default all
    towers. scale: the logit scale to start from, max_scale: where it is clamped (0: nowhere), learn_scale: whether it
    is trained, bias: the logit bias to start from; by default the objective's. parts: what an objective that looks
    inside a study compares, `{modality: "tokens" or "items"}`: tokens (patches, words), the default, or items (views,
    sentences), which have ids by their content. prototypes: how many learnt vectors an objective gets that wants some.

    Of the objective's options `same_group` is "mask" unless said otherwise. Shuffled tuples of Symile that happen to be
    one whole sample are then left out, too; "ignore" has them as negatives, as in the paper.
    """

    name: str
    weight: float = 1.0
    modalities: tuple[str, ...] | None = None
    scale: float | None = None
    max_scale: float | None = None
    learn_scale: bool | None = None
    bias: float | None = None
    parts: dict[str, str] = field(default_factory=dict)
    prototypes: int = 0

    def __post_init__(self):
        for modality, part in self.parts.items():
            check_choice(f"parts.{modality}", part, ("tokens", "items"))
        if self.scale is not None and self.scale <= 0:
            raise UserError(
                f"the scale of objective {self.name!r} is a multiplier and must be positive, got {self.scale}"
            )
        if self.max_scale is not None and self.max_scale < 0:
            raise UserError(
                f"max_scale of objective {self.name!r} must be positive, or 0 for none, got {self.max_scale}"
            )


@dataclass(frozen=True)
class Term:
    """An objective with its place in the sum."""

    config: TermConfig
    objective: Objective

    @property
    def init_scale(self) -> float:
        """What the logit scale starts at."""
        return self.config.scale or self.objective.scale.init

    @property
    def max_scale(self) -> float | None:
        """What the logit scale is kept below; None for free."""
        limit = self.config.max_scale
        return self.objective.scale.maximum if limit is None else (limit or None)

    @property
    def learn_scale(self) -> bool:
        """Whether the logit scale is trained."""
        own = self.config.learn_scale
        return self.objective.scale.learnable if own is None else own

    def compares_items(self, modality: str) -> bool:
        """Whether it looks at the items of a study, rather than the tokens inside them."""
        return self.config.parts.get(modality) == "items"


@dataclass(frozen=True)
class Terms:
    """The weighted sum. Parameters: "objectives" (`{term: {"log_scale", "bias"}}`), "prototypes" (`{term: [k, E]}`)."""

    terms: Mapping[str, Term]

    @classmethod
    def create(cls, objectives: Mapping[str, Mapping[str, Any]], modalities: tuple[str, ...]) -> "Terms":
        """From `config.method.objectives` and the modalities that have a tower.

        Raises:
          UserError: no objective, or one that does not exist or does not fit the modalities.
        """
        if not objectives:
            raise UserError(f"config.method.objectives is empty; valid: {', '.join(sorted(losses.OBJECTIVES))}")
        return cls({k: _make_term(k, objectives[k], modalities) for k in sorted(objectives)})

    @property
    def with_tokens(self) -> frozenset[str]:
        """The modalities whose tokens must be projected."""
        chosen = (t for t in self.terms.values() if t.objective.takes == "tokens")
        return frozenset(m for t in chosen for m in t.objective.modalities if not t.compares_items(m))

    def init(self, key: jax.Array, embed_dim: int) -> Params:
        """Fresh parameters."""
        learnt, prototypes = {}, {}
        for i, (name, term) in enumerate(self.terms.items()):
            learnt[name] = {"log_scale": jnp.float32(math.log(term.init_scale))}
            if term.objective.bias is not None:
                start = term.objective.bias if term.config.bias is None else term.config.bias
                learnt[name]["bias"] = jnp.float32(start)
            if "prototypes" in term.objective.needs:
                shape = (term.config.prototypes, embed_dim)
                prototypes[name] = unit(jax.random.normal(jax.random.fold_in(key, i), shape))
        return {"objectives": learnt} | ({"prototypes": prototypes} if prototypes else {})

    def __call__(self, encoded: Encoded, params: Params, batch, key: jax.Array) -> Loss:
        """The weighted sum over the whole global batch."""
        parts = {}
        for i, (name, term) in enumerate(self.terms.items()):
            learnt = params["objectives"][name]
            log_scale = learnt["log_scale"] if term.learn_scale else jax.lax.stop_gradient(learnt["log_scale"])
            prototypes = params.get("prototypes", {}).get(name)
            loss = term.objective(
                encoded.pooled if term.objective.takes == "pooled" else _inside(encoded, batch, term),
                logit_scale=jnp.exp(log_scale),
                logit_bias=learnt.get("bias"),
                prototypes=None if prototypes is None else unit(prototypes),
                present=encoded.present,
                ids=batch.ids,
                targets=batch.targets,
                key=jax.random.fold_in(key, i),
                batch_axes=current_batch_axes(),
            )
            parts[name] = (term.config.weight, loss)
        return Loss.sum(parts)

    def clamp(self, params: Params) -> Params:
        """Keeps the scales below their limits, as OpenCLIP does after each update."""
        learnt = {}
        for name, term in self.terms.items():
            learnt[name] = dict(params["objectives"][name])
            if term.max_scale:
                learnt[name]["log_scale"] = jnp.minimum(learnt[name]["log_scale"], math.log(term.max_scale))
        return {**params, "objectives": learnt}

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


def _inside(encoded: Encoded, batch, term: Term) -> dict[str, Tokens]:
    """The parts of every study that a term compares, beside its pooled embedding."""
    out = {}
    for m in term.objective.modalities:
        if term.compares_items(m):
            ids = content_ids(batch.items[m])
            out[m] = Tokens(encoded.items[m], encoded.item_mask[m], pooled=encoded.pooled[m], group=ids)
        else:
            parts, mask = (x.reshape(x.shape[0], -1, *x.shape[3:]) for x in (encoded.tokens[m], encoded.token_mask[m]))
            out[m] = Tokens(parts, mask, pooled=encoded.pooled[m])
    return out


def _make_term(key: str, options: Mapping[str, Any], modalities: tuple[str, ...]) -> Term:
    where = f"config.method.objectives.{key}"
    known = {f.name for f in fields(TermConfig)}
    config = build(TermConfig, {"name": key, **{k: v for k, v in options.items() if k in known}}, where)
    own = {k: v for k, v in options.items() if k not in known}
    names = config.modalities or modalities
    for m in names:
        if m not in modalities:
            raise UserError(f"{where}: no tower encodes {m!r}; towers: {', '.join(modalities)}")
    for m in config.parts:
        if m not in names:
            raise UserError(f"{where}.parts names {m!r}, which the objective does not take; {suggest(m, names)}")
    # Reconstructions of one scan, or views of one study, are not told apart unless a recipe asks for it.
    formula = losses.OBJECTIVES.get(config.name)
    own = own if formula is None or not formula.compares_samples else {"same_group": "mask", **own}
    try:
        objective = losses.get(config.name, modalities=names, **own)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if "prototypes" in objective.needs and config.prototypes < 1:
        raise UserError(f"{where} learns prototypes; say how many with {where}.prototypes=")
    return Term(config, objective)
