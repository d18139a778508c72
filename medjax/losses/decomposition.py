"""Embeddings in two parts: what modalities share, aligned, and what each has alone, orthogonal to it (REARM)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.base import Term
from medjax.losses.objective import Inputs, Settings, cross_entropy
from medjax.losses.pairwise import Pairwise
from medjax.losses.sepclr import halves
from medjax.losses.similarity import dot


@dataclass(frozen=True)
class OrthogonalDecomposition(Pairwise):
    """`mean over pairs of InfoNCE(shared_x, shared_y) + orthogonality * mean over m of mean_i cos(shared_m, unique_m)^2`.

    The first half of an embedding is the part shared with other modalities, the second half the unique one. REARM,
    arXiv 2508.13745, refines multi-modal contrast by such a constraint; its exact penalty (squared cosine of a sample
    or norm of a cross-correlation matrix), its weights and its temperature could not be confirmed, and its
    recommendation graph is no part of this. The cosine makes the penalty blind to length, so that it cannot be met by
    shrinking a part; a part of length zero is orthogonal. InfoNCE takes the shared parts as they are: a head that wants
    cosines normalises each half.

    orthogonality: weight of the penalty. pairs, weights, reduction: of the InfoNCE part, see `Pairwise`; all modalities
    enter the penalty.
    """

    orthogonality: float = 1.0

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or a negative weight."""
        super().check(modalities)
        if self.orthogonality < 0:
            raise UserError(f"orthogonal_decomposition's orthogonality must not be negative, got {self.orthogonality}")
