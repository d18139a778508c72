"""An objective as a pure function: checks its inputs, places itself on the mesh, and hands over to its formula."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medjax.errors import UserError, suggest
from medjax.losses.base import Loss, Term
from medjax.losses.collectives import AxisName, psum
from medjax.losses.inputs import Inputs, check_place, check_shapes, with_absent_row
from medjax.losses.reduce import Plan, reduce_pairs
from medjax.losses.relations import Relation
from medjax.losses.similarity import product
from medjax.losses.statistics import Stats


@dataclass(frozen=True)
class Scale:
    """What the logit scale, the multiplier itself, starts at, and what a learnable one is kept below (None: free)."""

    init: float
    maximum: float | None = None
    learnable: bool = True


class Formula:
    """The mathematics of one objective; its dataclass fields are the options that `get` accepts.

    scale: of the literature. bias: what a learnable logit bias starts at, None where the objective has none.
    takes: "pooled" vectors or "tokens". needs: which of "key", "targets", "prototypes" must be passed.
    reduction: how the terms become one number, see `Group`. compares_samples: whether policies for related pairs of
    samples mean anything.
    """

    scale: Scale = Scale(init=1 / 0.07, maximum=100.0)
    bias: float | None = None
    takes: str = "pooled"
    needs: tuple[str, ...] = ()
    reduction: str = "mean"
    compares_samples: bool = True

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError where the options do not fit the modalities."""

    def terms(self, inputs: Inputs, settings: "Settings") -> dict[str, Term]:
        """The named terms of the loss."""
        raise NotImplementedError

    def score(self, queries, candidates, target, logit_scale, present, modalities) -> jax.Array:
        """See `Objective.score`; by default the mean inner product with the present modalities, times the scale."""
        return mean_of_products(queries, candidates, logit_scale, present)


@dataclass(frozen=True)
class Settings:
    """The choices every objective shares; see `medjax.losses.get`."""

    impl: str
    block: int
    relation: Relation
    missing: str

    def reduce(self, tile, theta, queries, keys, query_rows, key_rows, axis_name: AxisName, **options):
        """`reduce_pairs` under these settings."""
        options = {"relation": self.relation, **options}
        plan = Plan(tile, impl=self.impl, block=self.block, axis_name=axis_name, **options)
        return reduce_pairs(plan, theta, queries, keys, query_rows, key_rows)


@dataclass(frozen=True)
class Objective:
    """A contrastive objective, made by `medjax.losses.get`; calling it is pure and differentiable."""

    name: str
    formula: Formula
    modalities: tuple[str, ...] | None
    settings: Settings

    @property
    def scale(self) -> Scale:
        """Where the literature starts the logit scale, and where it clamps it."""
        return self.formula.scale

    @property
    def bias(self) -> float | None:
        """Where the literature starts the logit bias; None where the objective has none."""
        return self.formula.bias

    @property
    def takes(self) -> str:
        """ "pooled": embeddings are `[b, E]`; "tokens": they are `medjax.losses.Tokens`."""
        return self.formula.takes

    @property
    def needs(self) -> tuple[str, ...]:
        """Which of "key", "targets" and "prototypes" must be passed."""
        return self.formula.needs

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError where the options do not fit the modalities."""
        if self.settings.relation.policies and not self.formula.compares_samples:
            given = ", ".join(f"same_{kind}" for kind in self.settings.relation.policies)
            raise UserError(f"objective {self.name!r} compares no two samples; leave {given} at 'ignore'")
        try:
            self.formula.check(modalities)
        except UserError as error:
            raise UserError(f"objective {self.name!r}: {error}") from None

    def __call__(
        self,
        embeddings: Mapping[str, Any],
        *,
        logit_scale: jax.Array | float,
        logit_bias: jax.Array | float | None = None,
        prototypes: jax.Array | None = None,
        present: Mapping[str, jax.Array] | None = None,
        ids: Mapping[str, jax.Array] | None = None,
        targets: Any = None,
        key: jax.Array | None = None,
        axis_name: AxisName = None,
        batch_axes: tuple[str, ...] | None = None,
    ) -> Loss:
        """The loss of a batch.

        Args:
          embeddings: `{modality: [b, E]}`, float32 or bfloat16, already normalised where the objective wants that; for
            an objective that `takes` tokens `{modality: Tokens}`.
          logit_scale: float32[], the multiplier itself (1 / temperature), not its logarithm.
          logit_bias: float32[], for objectives that have one.
          prototypes: `[k, E]`, for objectives that compare with learnt or given vectors, the same on all devices.
          present: `{modality: bool[b]}`; rows that are absent enter nothing. Default: all present.
          ids: `{"patient" | "group" | "text": uint32[b, 2]}`, 64-bit hashes; zero means unknown.
          targets: what the objective says it needs.
          key: PRNG key, equal on all devices, for objectives that draw negatives.
          axis_name: mesh axis or axes of the caller's `shard_map` over which the batch is split.
          batch_axes: mesh axes over which the global arrays are sharded; `shard_map` is entered here. `()` says
            that under a mesh the arrays are replicated.

        Raises:
          UserError: a modality is missing, shapes differ, or it is not said where the batch lies on the mesh.
        """
        names = self._names(embeddings)
        inputs = Inputs(
            embeddings={m: jax.tree.map(jnp.asarray, embeddings[m]) for m in names},
            present={m: _all_present(embeddings[m]) if present is None else jnp.asarray(present[m]) for m in names},
            logit_scale=jnp.asarray(logit_scale, jnp.float32),
            logit_bias=None if logit_bias is None else jnp.asarray(logit_bias, jnp.float32),
            prototypes=None if prototypes is None else jnp.asarray(prototypes),
            ids=None if ids is None else {k: jnp.asarray(x) for k, x in ids.items()},
            targets=targets,
            key=key,
            axis_name=axis_name,
        )
        check_place(axis_name, batch_axes)
        check_shapes(self.name, self.takes, inputs)
        for what in self.needs:
            if getattr(inputs, what) is None:
                raise UserError(f"objective {self.name!r} needs {what}=; see its class in medjax.losses")
        if self.bias is not None and logit_bias is None:
            raise UserError(f"objective {self.name!r} has a bias; pass logit_bias=, at the start {self.bias:g}")
        if not next(iter(inputs.present.values())).size:
            inputs = with_absent_row(inputs)
        if batch_axes:
            return self._sharded(inputs, tuple(batch_axes))
        return self._local(inputs)

    def score(
        self,
        queries: Mapping[str, jax.Array],
        candidates: jax.Array,
        target: str,
        *,
        logit_scale: float = 1.0,
        present: Mapping[str, jax.Array] | None = None,
    ) -> jax.Array:
        """float32[n, k]: the logit with which each of k candidates of modality `target` completes each query.

        queries: `{modality: [n, E]}`, the other modalities; candidates: `[k, E]`. Pairwise objectives average the
        inner products over the present modalities, Symile takes the multilinear inner product, GRAM minus the volume.
        A query that lacks what the objective needs scores 0 everywhere.
        """
        names = tuple(self.modalities or sorted({*queries, target}))
        queries = {m: queries[m] for m in names if m in queries and m != target}
        if present is None:
            present = {m: _all_present(x) for m, x in queries.items()}
        if target not in names or not queries:
            n = len(next(iter(present.values())))
            return jnp.zeros((n, candidates.shape[0]), jnp.float32)
        return self.formula.score(queries, candidates, target, logit_scale, present, names)

    def _names(self, embeddings: Mapping) -> tuple[str, ...]:
        names = tuple(self.modalities or sorted(embeddings))  # sorted, as jit sorts the keys of a dict
        absent = [m for m in names if m not in embeddings]
        if absent:
            raise UserError(
                f"objective {self.name!r} has no embeddings of {absent[0]!r}; {suggest(absent[0], embeddings)}"
            )
        self.check(names)
        return names

    def _local(self, inputs: Inputs) -> Loss:
        terms = self.formula.terms(inputs, self.settings)
        terms = {k: Term(*psum((t.total, t.count), inputs.axis_name), t.weight) for k, t in terms.items()}
        return Loss.of(self.name, terms, self.formula.reduction)

    def _sharded(self, inputs: Inputs, axes: tuple[str, ...]) -> Loss:
        rows, everywhere = jax.P(axes), jax.P()

        def local(batch, shared):
            return self._local(Inputs(**batch, **shared, axis_name=axes))

        batch = {k: getattr(inputs, k) for k in ("embeddings", "present", "ids", "targets")}
        shared = {k: getattr(inputs, k) for k in ("logit_scale", "logit_bias", "prototypes", "key")}
        return jax.shard_map(local, in_specs=(rows, everywhere), out_specs=everywhere)(batch, shared)


def cross_entropy(stats: Stats, weight: float, smoothing: float = 0.0) -> Term:
    """`mean_i [ lse_i - (1 - smoothing) * positive_i - smoothing * mean_j S_ij ]` over rows that have an answer.

    With several answers `positive_i` is their weighted mean (SupCon's "out" form, arXiv 2004.11362 eq. 2). Needs the
    statistics "lse", "positive" and, with smoothing, "total".
    """
    valid = stats.weight > 0
    answer = stats.positive / jnp.where(valid, stats.weight, 1.0)
    loss = stats.lse - (1.0 - smoothing) * answer
    if smoothing:
        loss -= smoothing * stats.total / jnp.maximum(stats.count, 1.0)
    return Term(jnp.sum(jnp.where(valid, loss, 0.0)), valid.sum().astype(jnp.float32), weight)


def mean_of_products(queries, candidates, logit_scale, present) -> jax.Array:
    """float32[n, k]: the scale times the mean over present queries `{modality: [n, E]}` of `<q, c>`; 0 without any."""
    total, count = jnp.float32(0.0), jnp.float32(0.0)
    for m, x in queries.items():
        here = present[m][:, None].astype(jnp.float32)
        total, count = total + here * product(x, candidates), count + here
    n = next(iter(present.values())).shape[0]
    return jnp.broadcast_to(logit_scale * total / jnp.maximum(count, 1.0), (n, candidates.shape[0]))


def _all_present(x: Any) -> jax.Array:
    return jnp.ones(jax.tree.leaves(x)[0].shape[0], bool)
