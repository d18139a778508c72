"""SigLIP: every pair of a batch as a yes-or-no question of its own."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Scale, Settings
from medjax.losses.pairwise import Pairwise
from medjax.losses.similarity import affine


@dataclass(frozen=True)
class Sigmoid(Pairwise):
    """`-1/B sum_ij log sigmoid(z_ij (s <x_i, y_j> + b))`, z_ij = 1 for an answer and -1 otherwise.

    arXiv 2303.15343, with s = 10 and b = -10 at the start and no clamp. The sum over all keys of a row is
    divided by the number of rows, so the value grows with the batch, and so does the best bias. Every pair whose two
    rows are present is asked; the divisor is the number of rows with both modalities.
    """

    scale: ClassVar[Scale] = Scale(init=10.0)
    bias: ClassVar[float] = -10.0

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term: a question has no direction."""
        meta = [settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name) for m in (x, y)]
        theta = {"scale": inputs.logit_scale, "bias": inputs.logit_bias}
        embeddings = (inputs.embeddings[x], inputs.embeddings[y])
        rows, _ = settings.reduce(
            affine, theta, *embeddings, *meta, inputs.axis_name, columns=False, wanted=("softplus",)
        )
        both = inputs.present[x] & inputs.present[y]
        return {f"{x}_{y}": Term(jnp.sum(rows.softplus), both.sum().astype(jnp.float32))}
