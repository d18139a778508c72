"""Embeddings in two parts: what modalities share, aligned, and what each has alone, orthogonal to it (REARM)."""

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.averaging import average
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Settings, cross_entropy, mean_of_products
from medjax.losses.similarity import dot


@dataclass(frozen=True)
class OrthogonalDecomposition(Formula):
    """`mean over pairs of InfoNCE(shared_x, shared_y) + orthogonality * mean over m, i of cos(shared_im, unique_im)^2`.

    The first half of an embedding is the part shared with other modalities, the second half the unique one. REARM,
    arXiv 2508.13745, refines multi-modal contrast by such a constraint; its exact penalty (squared cosine of a sample
    or norm of a cross-correlation matrix), its weights and its temperature could not be confirmed, and its
    recommendation graph is no part of this. The cosine makes the penalty blind to length, so that it cannot be met by
    shrinking a part; a part of length zero is orthogonal. InfoNCE takes the shared parts as they are: a head that wants
    cosines normalises each half.

    orthogonality: weight of the penalty.
    """

    orthogonality: float = 1.0

    reduction: ClassVar[str] = "sum"

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for a single modality or a negative weight."""
        if len(modalities) < 2:
            raise UserError(f"orthogonal_decomposition aligns modalities and got only {modalities}; give at least two")
        if not self.orthogonality >= 0:
            raise UserError(f"orthogonal_decomposition's orthogonality must not be negative, got {self.orthogonality}")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term for each direction of each pair, and one for each modality."""
        parts = {m: halves("orthogonal_decomposition", z) for m, z in inputs.embeddings.items()}
        meta = {m: settings.relation.describe(p, inputs.ids, inputs.axis_name) for m, p in inputs.present.items()}
        shared, theta = {}, {"scale": inputs.logit_scale}
        for x, y in combinations(parts, 2):
            rows, columns = settings.reduce(dot, theta, parts[x][0], parts[y][0], meta[x], meta[y], inputs.axis_name)
            shared |= {f"{x}_to_{y}": cross_entropy(rows, 1.0), f"{y}_to_{x}": cross_entropy(columns, 1.0)}
        penalty = {f"orthogonal_{m}": _squared_cosine(*parts[m], inputs.present[m]) for m in parts}
        return average(shared, 1.0, inputs.axis_name) | average(penalty, self.orthogonality, inputs.axis_name)

    def score(self, queries, candidates, target, logit_scale, present, modalities) -> jax.Array:
        """The mean inner product of the shared parts, times the scale."""
        return score_first_halves("orthogonal_decomposition", queries, candidates, logit_scale, present)


def halves(name: str, z_be: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first and second half of each vector, for objective `name`; raises UserError for an odd width."""
    width = z_be.shape[1]
    if width % 2:
        raise UserError(f"{name} splits an embedding into two halves: its width must be even, got {width}")
    return z_be[:, : width // 2], z_be[:, width // 2 :]


def score_first_halves(name: str, queries, candidates: jax.Array, logit_scale, present) -> jax.Array:
    """float32[n, k]: `mean_of_products` of the first halves alone."""
    queries = {m: halves(name, x)[0] for m, x in queries.items()}
    return mean_of_products(queries, halves(name, candidates)[0], logit_scale, present)


def _squared_cosine(x_be: jax.Array, y_be: jax.Array, present: jax.Array) -> Term:
    x_be, y_be = x_be.astype(jnp.float32), y_be.astype(jnp.float32)
    xx, yy, xy = jnp.sum(x_be * x_be, axis=1), jnp.sum(y_be * y_be, axis=1), jnp.sum(x_be * y_be, axis=1)
    angle = present & (xx * yy > 0)
    cosine = jnp.where(angle, xy * xy / jnp.where(angle, xx * yy, 1.0), 0.0)
    return Term(jnp.sum(cosine), present.sum().astype(jnp.float32))
