"""Contrast of features with one prototype for each class, for samples of several classes (RAD)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.base import Term
from medjax.losses.collectives import global_rows
from medjax.losses.inputs import Inputs
from medjax.losses.labels import findings
from medjax.losses.objective import Formula, Scale, Settings
from medjax.losses.similarity import dot


@dataclass(frozen=True)
class PrototypeContrast(Formula):
    """`mean_i -1/|P_i| sum_{p in P_i} log [ exp(s <x_i, c_p>) / sum_{a in A_i} exp(s <x_i, c_a>) ]`.

    SupCon (arXiv 2004.11362) between features and prototypes c of classes, such as embedded guidelines:
    RAD, tdlhl/RAD. P_i are the classes of sample i, A_i these and its negatives. Every modality is a term; a sample
    without a class enters nothing. RAD's temperature could not be confirmed.

    `prototypes`: `[k, E]`. `targets`: `[b, k]`, bool or number: positive for the sample's classes, 0 for others,
    negative for unknown, which are neither; or a batch's `{"labels", "labels_mask"}`. The matrix `[b, k]` is stored.

    negatives: None for every class that the sample has not, or how many of them to draw for each of its
    classes, without replacement (RAD: 5); drawing needs `key`. That RAD shares the drawn ones among a sample's classes,
    as here, could not be confirmed.
    """

    negatives: int | None = None

    compares_samples: ClassVar[bool] = False
    scale: ClassVar[Scale] = Scale(init=1 / 0.07, maximum=100.0)

    @property
    def needs(self) -> tuple[str, ...]:
        """A key only where negatives are drawn."""
        return ("prototypes", "targets") if self.negatives is None else ("prototypes", "targets", "key")

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for a number of negatives that is not positive."""
        if self.negatives is not None and self.negatives < 1:
            raise UserError(f"prototype_contrast's negatives must be None or a positive number, got {self.negatives}")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term for each modality."""
        _check_shapes(inputs)
        targets = findings(inputs.targets)
        positive, negative = targets > 0, targets == 0
        out = {}
        for i, (m, x) in enumerate(inputs.embeddings.items()):
            drawn = negative
            if self.negatives is not None:
                drawn = self._draw(jax.random.fold_in(inputs.key, i), positive, negative, inputs.axis_name)
            s_bk = dot({"scale": inputs.logit_scale}, x, inputs.prototypes)
            out[m] = _sup_con(s_bk, positive, drawn, inputs.present[m])
        return out

    def _draw(self, key, positive: jax.Array, negative: jax.Array, axis_name) -> jax.Array:
        """bool[b, k]: some of the negatives, the same for a row of the batch on any mesh."""
        rows = global_rows(positive.shape[0], axis_name)
        draw = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), positive.shape[1:]))
        order = jnp.where(negative, draw(rows), 2.0)
        rank = jnp.argsort(jnp.argsort(order, axis=1), axis=1)
        wanted = self.negatives * positive.sum(axis=1, keepdims=True)
        return negative & (rank < wanted)


def _sup_con(s_bk: jax.Array, positive: jax.Array, negative: jax.Array, present: jax.Array) -> Term:
    count = positive.sum(axis=1)
    valid = present & (count > 0)
    candidate = (positive | negative) & valid[:, None]
    top = jax.lax.stop_gradient(jnp.max(jnp.where(candidate, s_bk, -jnp.inf), axis=1))
    top = jnp.where(valid, top, 0.0)
    mass = jnp.sum(jnp.where(candidate, jnp.exp(jnp.where(candidate, s_bk - top[:, None], 0.0)), 0.0), axis=1)
    lse = top + jnp.log(jnp.where(valid, mass, 1.0))
    answer = jnp.sum(jnp.where(positive, s_bk, 0.0), axis=1) / jnp.maximum(count, 1)
    return Term(jnp.sum(jnp.where(valid, lse - answer, 0.0)), valid.sum().astype(jnp.float32))


def _check_shapes(inputs: Inputs) -> None:
    b, width = next(iter(inputs.embeddings.values())).shape
    c, targets = inputs.prototypes, findings(inputs.targets)
    if c.ndim != 2 or c.shape[1] != width:
        raise UserError(f"prototypes must be [k, {width}], as wide as the embeddings, got {list(c.shape)}")
    if targets.shape != (b, c.shape[0]):
        raise UserError(
            f"targets must be [{b}, {c.shape[0]}], a row for each sample and a column for each prototype, "
            f"got {list(targets.shape)}"
        )
