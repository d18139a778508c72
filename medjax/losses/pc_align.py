"""PC-Align: every concept of a text against the best patch of every image, as a yes-or-no question (ConceptCLIP)."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from medjax.errors import check_choice
from medjax.losses.base import Term
from medjax.losses.items import ImageText, ItemRelation, flat
from medjax.losses.objective import Inputs, Scale, Settings
from medjax.losses.relations import POLICIES
from medjax.losses.token_similarity import all_patches, best_patch


@dataclass(frozen=True)
class PCAlign(ImageText):
    """`-1/C sum_ic log sigmoid(z_ic max_p (s <v_ip, c> + b))`, z = 1 where concept c is of image i's text, else -1.

    arXiv 2501.15579, section 3.2, and JerrryNie/ConceptCLIP `open_clip/loss.py`; C is the number of concepts, s = 10
    and b = -10 at the start, apart from those of the image-text loss (which has twice the weight). Every pair of a
    concept and an image that are present is asked; the divisor is the number of concepts whose image is present too.

    pooling: over patches, "max", as published, or "lse", `log sum_p exp(s <v_ip, c>) + b`.
    same_concept: an image whose own text holds the same concept (`Tokens.group` of the text, such as a UMLS id) is a
    further "positive", left out ("mask"), or a negative as in the released code ("ignore"), which looks at no ids.
    """

    pooling: str = "max"
    same_concept: str = "positive"

    name: ClassVar[str] = "pc_align"
    scale: ClassVar[Scale] = Scale(init=10.0)
    bias: ClassVar[float] = -10.0

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or options."""
        super().check(modalities)
        check_choice("pooling", self.pooling, ("max", "lse"))
        check_choice("same_concept", self.same_concept, POLICIES)

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term: a question has no direction."""
        image, text, image_here, text_here = self.both(inputs)
        relation = ItemRelation(settings.relation, self.same_concept)
        meta = (
            relation.items(text, text_here, inputs.ids, inputs.axis_name, self.name),
            relation.samples(text, image_here, inputs.ids, inputs.axis_name, self.name),
        )
        tile = best_patch if self.pooling == "max" else all_patches
        theta = {"scale": inputs.logit_scale, "bias": inputs.logit_bias}
        keys = {"tokens": image.tokens, "mask": image.mask}
        rows, _ = settings.reduce(
            tile,
            theta,
            flat(text),
            keys,
            *meta,
            inputs.axis_name,
            relation=relation,
            columns=False,
            wanted=("softplus",),
        )
        complete = text.mask & (text_here & image_here)[:, None]
        return {f"{self.text}_{self.image}": Term(jnp.sum(rows.softplus), complete.sum().astype(jnp.float32))}
