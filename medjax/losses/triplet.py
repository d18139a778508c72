"""The triplet loss between modalities, with the hardest negative of the batch (VSE++) or all of them."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice
from medjax.losses.base import Term
from medjax.losses.blocks import by_blocks
from medjax.losses.collectives import all_gather
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Scale, Settings
from medjax.losses.pairwise import Negatives, Pairwise
from medjax.losses.similarity import dot


@dataclass(frozen=True)
class Triplet(Pairwise):
    """`mean_i max(0, margin + max_{j != i} s_ij - s_ii)`, half in each direction, with s_ij = s <x_i, y_j>.

    VSE++, arXiv 1707.05612, which adds the directions and the rows of the batch up: here both are means,
    so that learning rates do not depend on the batch. The scale is 1 and fixed, so that the margin is one of cosines.
    Several right answers enter by their mean; a row without negatives has no loss.

    margin: VSE++'s is 0.2. negatives: "hardest", or "mean" of the hinge over all negatives.
    The hardest negative is sought in blocks of rows against the gathered keys, so memory is O(block x batch) and
    `impl` "gather" and "ring" are the same.
    """

    margin: float = 0.2
    negatives: str = "hardest"

    scale: ClassVar[Scale] = Scale(init=1.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown options."""
        super().check(modalities)
        check_choice("triplet negatives", self.negatives, ("hardest", "mean"))
        if not self.margin >= 0:
            raise UserError(f"triplet's margin must not be negative, got {self.margin}")

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term for each direction."""
        return {f"{a}_to_{b}": self._direction(inputs, settings, a, b) for a, b in ((x, y), (y, x))}

    def _direction(self, inputs: Inputs, settings: Settings, x: str, y: str) -> Term:
        described = [settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name) for m in (x, y)]
        keys, key_rows = all_gather((inputs.embeddings[y], described[1]), inputs.axis_name)
        theta, relation = {"scale": inputs.logit_scale}, Negatives(settings.relation)

        def losses(rows):
            queries, query_rows = rows
            s_qk = dot(theta, queries, keys)
            negative, answers = relation(query_rows, key_rows)
            weight = jnp.sum(answers, axis=1)
            answer = jnp.sum(answers * s_qk, axis=1) / jnp.where(weight > 0, weight, 1.0)
            loss = self._hinge(s_qk, negative, answer)
            return jnp.where(weight > 0, loss, 0.0), weight > 0

        block = inputs.present[x].shape[0] if settings.impl == "dense" else settings.block
        loss, valid = by_blocks(losses, (inputs.embeddings[x], described[0]), block)
        return Term(jnp.sum(loss), valid.sum().astype(jnp.float32), 0.5)

    def _hinge(self, s_qk: jax.Array, negative: jax.Array, answer: jax.Array) -> jax.Array:
        count = negative.sum(axis=1)
        if self.negatives == "hardest":
            # By its place, not its value: a maximum's gradient compares values that may be rounded differently.
            place = jnp.argmax(jax.lax.stop_gradient(jnp.where(negative, s_qk, -jnp.inf)), axis=1)
            hardest = jnp.take_along_axis(s_qk, place[:, None], axis=1)[:, 0]
            return jnp.where(count > 0, jax.nn.relu(self.margin + hardest - answer), 0.0)
        hinge = jnp.where(negative, jax.nn.relu(self.margin + s_qk - answer[:, None]), 0.0)
        return hinge.sum(axis=1) / jnp.maximum(count, 1)
