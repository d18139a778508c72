"""MIL-NCE: an image and a bag of sentences of which at least one should fit."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from medjax.errors import check_choice
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.items import ImageText, ItemRelation, excess, flat
from medjax.losses.objective import Scale, Settings
from medjax.losses.pairwise import Negatives
from medjax.losses.similarity import dot
from medjax.losses.token_similarity import masked_log_sum


@dataclass(frozen=True)
class MILNCE(ImageText):
    """`-log P_i / (P_i + R_i + C_i)`: the bag of image i, other bags with it, other images with its bag.

    arXiv 1912.06430 (MIL-NCE), as used by SurgVLP, arXiv 2307.15220. `P_i = sum_{k in bag i} e^l(i,k)`,
    `R_i = sum_{k not in bag i} e^l(i,k)`, `C_i = sum_{k in bag i} sum_{j != i} e^l(j,k)`, l the inner product of the
    image's pooled vector (`Tokens.pooled`, or its only token) with a sentence, times the scale: 1 / 0.1 for normalised
    vectors. Under a "positive" policy the bag of an image takes in those of its other right answers, C_i its own alone.

    variant: "paper" as above; "released" is CAMMA-public/PeskaVLP `milnce.py`, whose denominator counts the bag twice,
    and whose scale is 1, meant for vectors that are not normalised.
    """

    variant: str = "paper"

    name: ClassVar[str] = "mil_nce"

    @property
    def scale(self) -> Scale:
        """1 / 0.1, fixed; the released code has none."""
        return Scale(init=1.0 if self.variant == "released" else 10.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or an unknown variant."""
        super().check(modalities)
        check_choice("variant", self.variant, ("paper", "released"))

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term: both directions share a denominator."""
        _, text, image_here, text_here = self.both(inputs)
        relation = ItemRelation(settings.relation)
        meta = relation.describe(text, text_here, image_here, inputs, self.name)
        rows, columns = settings.reduce(
            dot,
            {"scale": inputs.logit_scale},
            flat(text),
            self.pooled(inputs, self.image),
            *meta,
            inputs.axis_name,
            relation=Negatives(relation),
            wanted=("lse", "answers"),
        )
        shape = text.mask.shape
        others = (rows.count > 0).reshape(shape) & image_here[:, None]
        # Other bags with this image, and other images with this bag.
        parts = jnp.stack([columns.lse, masked_log_sum(rows.lse.reshape(shape), others, 1)], axis=1)
        some = jnp.stack([columns.count > 0, jnp.any(others, axis=1)], axis=1)
        negative, some = masked_log_sum(parts, some, 1), jnp.any(some, axis=1)
        bag = columns.answers + (math.log(2.0) if self.variant == "released" else 0.0)
        loss = excess(negative, some, bag) + (bag - columns.answers)
        valid = (columns.weight > 0) & text_here
        return {
            f"{self.image}_{self.text}": Term(jnp.sum(jnp.where(valid, loss, 0.0)), valid.sum().astype(jnp.float32))
        }
