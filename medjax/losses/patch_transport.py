"""Conditional transport between the patches of an image and the words or labels that belong to it (PatchCT)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.items import ImageText
from medjax.losses.objective import Scale, Settings
from medjax.losses.similarity import product
from medjax.losses.token_similarity import each, masked_softmax
from medjax.losses.tokens import Tokens


@dataclass(frozen=True)
class PatchTransport(ImageText):
    """`E_p(x) E_pi(y|x) c(x, y) + E_q(y) E_pi(x|y) c(x, y)`, c = 1 - <x, y>, for patches x and labels y of one sample.

    PatchCT (arXiv 2307.09066); the navigators are `pi(y|x)` proportional to `q(y) exp(s <x, y>)` and
    `pi(x|y)` to `p(x) exp(s <x, y>)`. The authors publish no code: the equal weights of the two directions and the
    scale are this library's. There are no negatives, so a sample's loss does not depend on its batch, and the
    policies for related pairs have no meaning.

    p and q are `Tokens.weight` of the image and the text, normalised over the real tokens; without one, uniform.
    """

    name: ClassVar[str] = "patch_transport"
    compares_samples: ClassVar[bool] = False
    scale: ClassVar[Scale] = Scale(init=10.0)
    reduction: ClassVar[str] = "sum"

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """The cost of carrying patches to labels, and of carrying labels to patches."""
        image, text, image_here, text_here = self.both(inputs)
        pairs = {"x": image.tokens, "y": text.tokens, "p": shares(image), "q": shares(text)}
        costs = each(
            lambda one: transport_costs(inputs.logit_scale, **one), pairs, image.mask.shape[1] * text.mask.shape[1]
        )
        valid = image_here & text_here & jnp.any(pairs["p"] > 0, axis=1) & jnp.any(pairs["q"] > 0, axis=1)
        total = jnp.sum(jnp.where(valid[:, None], costs, 0.0), axis=0)
        count = valid.sum().astype(jnp.float32)
        return {
            f"{self.image}_to_{self.text}": Term(total[0], count),
            f"{self.text}_to_{self.image}": Term(total[1], count),
        }


def shares(x: Tokens) -> jax.Array:
    """float32[b, n]: the weight of each real token in its sample, adding up to 1; zeros where there is none."""
    weight = jnp.where(x.mask, 1.0 if x.weight is None else x.weight.astype(jnp.float32), 0.0)
    total = jnp.sum(weight, axis=1, keepdims=True)
    return weight / jnp.where(total > 0, total, 1.0)


def navigators(scale: jax.Array, x: jax.Array, y: jax.Array, p: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`pi(y|x)`, whose rows add up to 1, and `pi(x|y)`, whose columns do: float32[n, m] each.

    x: `[n, E]`, y: `[m, E]`, of shares p float32[n] and q float32[m].
    """
    logits = scale * product(x, y)

    def prior(share):
        return jnp.log(jnp.where(share > 0, share, 1.0))

    to_y = masked_softmax(logits + prior(q)[None], (q > 0)[None], 1)
    to_x = masked_softmax(logits + prior(p)[:, None], (p > 0)[:, None], 0)
    return to_y, to_x


def transport_costs(scale: jax.Array, x: jax.Array, y: jax.Array, p: jax.Array, q: jax.Array) -> jax.Array:
    """float32[2]: the expected cost from x to y and from y to x; see `navigators`."""
    to_y, to_x = navigators(scale, x, y, p, q)
    cost = 1.0 - product(x, y)
    return jnp.stack([jnp.sum(p[:, None] * to_y * cost), jnp.sum(q[None] * to_x * cost)])
