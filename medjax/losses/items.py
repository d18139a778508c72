"""What objectives over the parts of a sample share: sentences, words or concepts of a text met with images."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice, suggest
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula
from medjax.losses.relations import POLICIES, Relation
from medjax.losses.tokens import Tokens


@dataclass(frozen=True)
class ImageText(Formula):
    """An objective between the parts of two modalities, `{image: Tokens, text: Tokens}` unless it says otherwise.

    A sample without a real token, patch or sentence, is absent; padding enters nothing. `missing="neutral"` is the same
    as "mask".

    image, text: the names of the two modalities; `image` may as well be an ECG, with segments for patches.
    """

    image: str = "image"
    text: str = "text"

    name: ClassVar[str]
    takes: ClassVar[str] = "tokens"

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError unless both modalities are there."""
        for option in ("image", "text"):
            modality = getattr(self, option)
            if modality not in modalities:
                raise UserError(f"{self.name}'s {option}={modality!r} is not given; {suggest(modality, modalities)}")
        if self.image == self.text:
            raise UserError(f"{self.name} compares two modalities, and image= and text= are both {self.image!r}")

    def both(self, inputs: Inputs) -> tuple[Tokens, Tokens, jax.Array, jax.Array]:
        """Image, text, and bool[b] of each: which samples are present, with at least one real token."""
        tokens = [inputs.embeddings[m] for m in (self.image, self.text)]
        here = [
            inputs.present[m] & jnp.any(x.mask, axis=1) for m, x in zip((self.image, self.text), tokens, strict=True)
        ]
        return *tokens, *here

    def pooled(self, inputs: Inputs, modality: str) -> jax.Array:
        """`[b, E]`: the vector of each sample, or its only token. Raises UserError where there is neither."""
        x = inputs.embeddings[modality]
        if x.pooled is not None:
            return x.pooled
        if x.tokens.shape[1] > 1:
            raise UserError(
                f"{self.name} needs Tokens.pooled of {modality!r}, [b, E], which has several tokens a sample"
            )
        return x.tokens[:, 0]


@dataclass(frozen=True)
class ItemRelation:
    """`Relation` between items (queries) and whole samples (keys): an item's answer is its own sample.

    same_group: what to do with a sample that is not the item's own but holds an item of the same id (`Tokens.group`:
    the same concept, the same sentence): "ignore", "mask" or "positive", as in `Relation`.
    """

    relation: Relation
    same_group: str = "ignore"

    def __post_init__(self):
        check_choice("policy for items of one group", self.same_group, POLICIES)

    def describe(self, x: Tokens, x_here: jax.Array, sample_here: jax.Array, inputs: Inputs, name: str):
        """Metadata of `b * n` items x of the samples `x_here`, and of the b samples that they meet, `sample_here`."""
        n = x.mask.shape[1]
        items = self.relation.describe(x_here, inputs.ids, inputs.axis_name)
        items = jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), items)
        items["present"] &= x.mask.reshape(-1)
        samples = self.relation.describe(sample_here, inputs.ids, inputs.axis_name)
        if self.same_group != "ignore":
            if x.group is None:
                raise UserError(f"{name} compares the ids of items and got none; give Tokens.group, uint32[b, n, 2]")
            real = x.mask & x_here[:, None]
            groups = jnp.where(real[..., None], x.group, 0)
            items["item_group"], samples["item_groups"] = groups.reshape(-1, 2), groups
        return items, samples

    def __call__(self, queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
        """`(allowed bool[q, k], positive float32[q, k])`."""
        allowed, positive = self.relation(queries, keys)
        if self.same_group == "ignore":
            return allowed, positive
        item, sample = queries["item_group"], keys["item_groups"]
        equal = (item[:, None, None, 0] == sample[None, ..., 0]) & (item[:, None, None, 1] == sample[None, ..., 1])
        same = jnp.any(equal, axis=2) & jnp.any(item != 0, axis=1)[:, None]
        if self.same_group == "mask":
            return allowed & ((positive > 0) | ~same), positive
        same &= queries["present"][:, None] & keys["present"][None]
        return allowed | same, jnp.maximum(positive, same.astype(jnp.float32))


def flat(x: Tokens) -> jax.Array:
    """`[b * n, E]`: the tokens of all samples."""
    return x.tokens.reshape(-1, x.tokens.shape[-1])


def excess(negative: jax.Array, some: jax.Array, positive: jax.Array) -> jax.Array:
    """`log((e^positive + e^negative) / e^positive)`, which is 0 where there are no negatives."""
    return jnp.where(some, jax.nn.softplus(jnp.where(some, negative - positive, 0.0)), 0.0)
