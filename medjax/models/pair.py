"""A tower of pictures and one of texts with their projections into one space: CLIP and its kin as released."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.base import Features
from medjax.models.heads import unit
from medjax.models.layers import dense
from medjax.models.partitioning import named


@dataclass(frozen=True)
class PairConfig:
    """embed_dim: E. image_projection, text_projection: widths of hidden GELU layers before the last linear one, none
    for a linear projection, None where the pooled features are the embedding. bias: of the projections'
    layers. logit_bias: whether there is one (SigLIP).
    """

    embed_dim: int
    image_projection: tuple[int, ...] | None = ()
    text_projection: tuple[int, ...] | None = ()
    bias: bool = False
    logit_bias: bool = False


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairFeatures:
    """image, text: features of the towers; None for what was not given. image_embed, text_embed: float32[b, E] of unit
    length. logit_scale: the multiplier of their inner products, and logit_bias what is added to them, float32[].
    """

    image: Features | None
    text: Features | None
    image_embed: jax.Array | None
    text_embed: jax.Array | None
    logit_scale: jax.Array
    logit_bias: jax.Array


class Pair(nn.Module):
    """image, text: towers, which parameters lie under the same names."""

    config: PairConfig
    image: nn.Module
    text: nn.Module

    @nn.compact
    def __call__(
        self,
        image: jax.Array | None = None,
        text: jax.Array | None = None,
        rows=None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> PairFeatures:
        """image: [b, H, W, C]. text: int32[b, L], of `lengths` int32[b]."""
        c = self.config
        pictures = None if image is None else self.image(image, rows, train)
        texts = None if text is None else self.text(text, rows, train, lengths=lengths)
        embed = {
            "image": self._project("image", pictures, c.image_projection),
            "text": self._project("text", texts, c.text_projection),
        }
        scale = self.param("logit_scale", named(nn.initializers.constant(2.6592)), ())
        bias = self.param("logit_bias", named(nn.initializers.zeros), ()) if c.logit_bias else jnp.float32(0)
        return PairFeatures(pictures, texts, embed["image"], embed["text"], jnp.exp(scale), bias)

    def _project(self, name: str, features: Features | None, hidden: tuple[int, ...] | None) -> jax.Array | None:
        if features is None:
            return None
        x = features.pooled
        if hidden is not None:
            for i, width in enumerate((*hidden, self.config.embed_dim)):
                x = nn.gelu(x, approximate=False) if i else x
                x = dense(width, ("embed", None), jnp.float32, f"{name}_projection_{i}", self.config.bias)(x)
        return unit(x)
