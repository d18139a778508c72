"""GLoRIA's local loss: words of a report, and the parts of the image that each of them attends to."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import check_choice
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.items import ImageText
from medjax.losses.objective import Scale, Settings, cross_entropy
from medjax.losses.token_similarity import attended_words


@dataclass(frozen=True)
class GloriaLocal(ImageText):
    """`CE(S) + CE(S^T)` with `S_ij = s * log sum_w exp(5 cos(w, c_ijw))`, c the patches a word attends to.

    Huang et al., ICCV 2021, and marshuang80/gloria `gloria_loss.py`: the attention, of inner products, is a softmax
    over the words and then, times 4, one over the patches; s = 10, fixed. VELVET-Med is the same with
    `reduction="mean"`. Words are masked everywhere, where the released code cuts each text to its length.

    attention_scale, word_scale: the 4 and the 5. aggregate: "sum" over words, as released, favours long texts; "mean".
    reduction: "sum" of the two directions, or their "mean".
    """

    attention_scale: float = 4.0
    word_scale: float = 5.0
    aggregate: str = "sum"
    reduction: str = "sum"

    name: ClassVar[str] = "gloria_local"
    scale: ClassVar[Scale] = Scale(init=10.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or options."""
        super().check(modalities)
        check_choice("aggregate", self.aggregate, ("sum", "mean"))
        check_choice("reduction", self.reduction, ("sum", "mean"))

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """Images against texts, and texts against images."""
        image, text, *here = self.both(inputs)
        meta = [settings.relation.describe(h, inputs.ids, inputs.axis_name) for h in here]
        words = jnp.float32(self.word_scale)
        theta = {"scale": inputs.logit_scale, "attention": jnp.float32(self.attention_scale), "words": words}
        queries, keys = ({"tokens": x.tokens, "mask": x.mask} for x in (image, text))
        tile = attended_words
        if self.aggregate == "mean":
            tile = _mean_of_words
        rows, columns = settings.reduce(tile, theta, queries, keys, *meta, inputs.axis_name)
        return {
            f"{self.image}_to_{self.text}": cross_entropy(rows, 1.0),
            f"{self.text}_to_{self.image}": cross_entropy(columns, 1.0),
        }


def _mean_of_words(theta: dict, queries: dict, keys: dict) -> jax.Array:
    length = jnp.maximum(jnp.sum(keys["mask"], axis=1), 1)
    return attended_words(theta, queries, keys) - theta["scale"] * jnp.log(length.astype(jnp.float32))[None]
