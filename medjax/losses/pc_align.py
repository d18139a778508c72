"""PC-Align: every concept of a text against the best patch of every image, as a yes-or-no question (ConceptCLIP)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.items import ImageText, ItemRelation, flat
from medjax.losses.objective import Scale, Settings
from medjax.losses.relations import POLICIES
from medjax.losses.token_similarity import all_patches, best_patch, masked_log_sum


@dataclass(frozen=True)
class PCAlign(ImageText):
    """`-1/C sum_ic log sigmoid(z_ic max_p (s <v_ip, c> + b))`, z = 1 where concept c is of image i's text, else -1.

    arXiv 2501.15579, and JerrryNie/ConceptCLIP `open_clip/loss.py`; C is the number of concepts, s = 10
    and b = -10 at the start, apart from those of the image-text loss (which has twice the weight). Every pair of a
    concept and an image that are present is asked; the divisor is the number of concepts whose image is present too.

    pooling: over patches, "max", as published, or "lse", `log sum_p exp(s <v_ip, c>) + b`.
    asked: "concept" as above; "text" is a further loss of the released code, in which the scores of a text's concepts
    are pooled by `log mean exp` into one question for each image and text, and the divisor is the number of pairs.
    same_concept: an image whose own text holds the same concept (`Tokens.group` of the text, such as a UMLS id) is a
    further "positive", left out ("mask"), or a negative as in the released code ("ignore"), which looks at no ids. The
    questions of whole texts need "ignore".
    """

    pooling: str = "max"
    asked: str = "concept"
    same_concept: str = "positive"

    name: ClassVar[str] = "pc_align"
    scale: ClassVar[Scale] = Scale(init=10.0)
    bias: ClassVar[float] = -10.0

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or options."""
        super().check(modalities)
        check_choice("pooling", self.pooling, ("max", "lse"))
        check_choice("asked", self.asked, ("concept", "text"))
        check_choice("same_concept", self.same_concept, POLICIES)
        if self.asked == "text" and self.same_concept != "ignore":
            raise UserError("pc_align with asked='text' compares no concepts; use same_concept='ignore'")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term: a question has no direction."""
        image, text, image_here, text_here = self.both(inputs)
        relation = ItemRelation(settings.relation, self.same_concept)
        meta = relation.describe(text, text_here, image_here, inputs, self.name)
        if self.asked == "concept":
            queries, tile = flat(text), best_patch if self.pooling == "max" else all_patches
            complete = text.mask & (text_here & image_here)[:, None]
        else:
            tile = best_patch_of_texts if self.pooling == "max" else all_patches_of_texts
            queries = {"tokens": text.tokens, "mask": text.mask}
            meta = settings.relation.describe(text_here, inputs.ids, inputs.axis_name), meta[1]
            complete = text_here & image_here
        rows, _ = settings.reduce(
            tile,
            {"scale": inputs.logit_scale, "bias": inputs.logit_bias},
            queries,
            {"tokens": image.tokens, "mask": image.mask},
            *meta,
            inputs.axis_name,
            relation=relation,
            columns=False,
            wanted=("softplus",),
        )
        return {f"{self.text}_{self.image}": Term(jnp.sum(rows.softplus), complete.sum().astype(jnp.float32))}


def best_patch_of_texts(theta: dict, queries: dict, keys: dict) -> jax.Array:
    """`log mean exp` over the concepts of a text, `tokens` [q, n, E] and `mask` bool[q, n], of `best_patch`."""
    return _of_texts(best_patch, theta, queries, keys)


def all_patches_of_texts(theta: dict, queries: dict, keys: dict) -> jax.Array:
    """The same of `all_patches`."""
    return _of_texts(all_patches, theta, queries, keys)


def _of_texts(tile, theta: dict, queries: dict, keys: dict) -> jax.Array:
    tokens, mask = queries["tokens"], queries["mask"]
    scores = tile(theta, tokens.reshape(-1, tokens.shape[-1]), keys).reshape(*mask.shape, -1)
    length = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)
    return masked_log_sum(scores, mask[..., None], 1) - jnp.log(length)[:, None]
