"""Projection of features to the shared embedding space."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.layers import dense


@dataclass(frozen=True)
class HeadConfig:
    """hidden: width of a GELU layer before the last linear one; 0 for a linear head. centre: the last layer has a bias
    that starts at minus the mean projection of the first batch. normalise: to unit length.

    Fresh encoders map everything to nearly one direction; centred, small differences fill the sphere from the start
    (data-dependent initialisation, arXiv 1602.07868 section 3), which products of several embeddings need most.
    """

    hidden: int = 0
    centre: bool = False
    normalise: bool = True


class Head(nn.Module):
    """[b, D] -> float32[b, E]."""

    config: HeadConfig
    embed_dim: int

    @nn.compact
    def __call__(self, x_bd: jax.Array) -> jax.Array:
        x = x_bd.astype(jnp.float32)
        if self.config.hidden:
            x = nn.gelu(dense(self.config.hidden, ("embed", "mlp"), jnp.float32, "hidden")(x), approximate=False)
        return dense(self.embed_dim, ("embed", None), jnp.float32, "out", use_bias=self.config.centre)(x)


def unit(x: jax.Array) -> jax.Array:
    """Scales the last axis to length 1, in float32; a zero vector stays zero with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
