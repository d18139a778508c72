"""From the items of a study (slices, views, instances of a bag) to one vector.

Shapes: b studies, N items, D width. Masked items have no influence and get no gradient, whatever they hold; a study
without items becomes zeros. Nothing here knows the order of the items.
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.blocks import Attention, BlocksConfig
from medjax.models.layers import dense, embed_init, layer_norm, masked_mean
from medjax.models.partitioning import named


@dataclass(frozen=True)
class PoolConfig:
    """name: "mean" of the items' projections, or before the projection "attention" (`AttentionPool`) or "gated"
    (`GatedAttentionPool`). heads: of "attention". hidden: width inside "gated".
    """

    name: Literal["mean", "attention", "gated"] = "mean"
    heads: int = 4
    hidden: int = 128


class Pool(nn.Module):
    """The pooling of a configuration, [b, N, D] and bool[b, N] -> float32[b, D].

    The weights of gated attention are sown as "weights" where "intermediates" is mutable.
    """

    config: PoolConfig

    @nn.compact
    def __call__(self, x_bnd: jax.Array, mask_bn: jax.Array) -> jax.Array:
        c = self.config
        if c.name == "attention":
            return AttentionPool(c.heads, name="attention")(x_bnd, mask_bn)
        if c.name == "gated":
            pooled, weights = GatedAttentionPool(c.hidden, name="gated")(x_bnd, mask_bn)
            self.sow("intermediates", "weights", weights)
            return pooled
        return masked_mean(_clean(x_bnd, mask_bn), mask_bn)


class AttentionPool(nn.Module):
    """Multi-head self-attention among the items, then their mean (RadCLIP's pooling of slices).

    RadCLIP publishes neither its heads nor how attended slices become one vector. Ours is a residual, `x + scale *
    attention(norm(x))`, whose scale starts at zero: a fresh pool is the plain mean, and pretrained encoders stay what
    they were.

    heads: they must divide D. views: how many kinds of items have a learnt embedding, added before the attention (the
    projection of a radiograph, the section of a report, the place of a study among a patient's); 0 for none.
    """

    heads: int
    views: int = 0

    @nn.compact
    def __call__(self, x_bnd: jax.Array, mask_bn: jax.Array, view_bn: jax.Array | None = None) -> jax.Array:
        """x: [b, N, D]; mask: bool[b, N]; view: int32[b, N] below `views`, -1 for unknown. Returns float32[b, D]."""
        x, width = _clean(x_bnd, mask_bn), x_bnd.shape[-1]
        if self.views:
            table = self.param("views", named(embed_init, None, "embed"), (self.views, width))
            if view_bn is not None:
                chosen = view_bn[..., None] == jnp.arange(self.views)[None, None]
                x = _clean(x + jnp.einsum("bnv,vd->bnd", chosen.astype(jnp.float32), table), mask_bn)
        config = BlocksConfig(width=width, heads=self.heads)
        normed = layer_norm(config.epsilon, "norm")(x)
        scale = self.param("scale", named(nn.initializers.zeros, "embed"), (width,))
        attended = Attention(config, name="attention")(normed, normed, keep=mask_bn)
        return masked_mean(x + attended * scale[None, None], mask_bn)


class GatedAttentionPool(nn.Module):
    """A weighted mean of the instances of a bag, the weights `softmax(w^T (tanh(V h) * sigmoid(U h)))`.

    Attention-based multiple-instance learning, arXiv 1802.04712, equation 9; no biases, as there.
    """

    hidden: int = 128

    @nn.compact
    def __call__(self, x_bnd: jax.Array, mask_bn: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x: [b, N, D]; mask: bool[b, N]. Returns the bag, float32[b, D], and the weights, float32[b, N]."""
        x = _clean(x_bnd, mask_bn)
        tanh, gate = (dense(self.hidden, ("embed", "mlp"), jnp.float32, name, False)(x) for name in ("tanh", "gate"))
        logits = dense(1, ("mlp", None), jnp.float32, "weight", False)(nn.tanh(tanh) * nn.sigmoid(gate))
        weights = masked_softmax(logits[..., 0], mask_bn)
        return jnp.einsum("bn,bnd->bd", weights, x), weights


def masked_softmax(logits_bn: jax.Array, mask_bn: jax.Array) -> jax.Array:
    """[b, N]: the softmax over the items whose mask is true; zeros for a row without any."""
    highest = jnp.max(logits_bn, axis=1, keepdims=True, where=mask_bn, initial=jnp.finfo(logits_bn.dtype).min)
    shifted = jnp.where(mask_bn, logits_bn - jax.lax.stop_gradient(highest), 0)
    weights = jnp.where(mask_bn, jnp.exp(shifted), 0)
    total = jnp.sum(weights, axis=1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def _clean(x_bnd: jax.Array, mask_bn: jax.Array) -> jax.Array:
    """float32 with zeros in the place of masked items: a weight of zero would not stop a NaN."""
    return jnp.where(mask_bn[..., None], x_bnd.astype(jnp.float32), 0)
