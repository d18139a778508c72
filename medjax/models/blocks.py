"""The transformer under all of our encoders. Shapes: b rows, L tokens, D width, H heads, K = D / H."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from medjax.errors import UserError, check_choice
from medjax.models.layers import dense, drop, keep_mask, layer_norm
from medjax.models.partitioning import constrain, dividing, named

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]
ACTIVATIONS = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_tanh": partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
}
# What `remat_save` may name: outputs of the linear layers, and of attention before its last one.
SAVEABLE = ("query", "key", "value", "attention", "out", "up", "gate", "down")


@dataclass(frozen=True)
class BlocksConfig:
    """Sizes and options of a stack of blocks; encoders add theirs.

    width D, depth, heads H. hidden: of the MLP; 0 for `mlp_ratio` times the width. swiglu: a gated MLP, `silu(gate) *
    up` (arXiv 2002.05202), of this hidden width. norm_first: norms before attention and MLP (ViT), else after the sums
    (BERT). epsilon: of the norms. qk_norm: norms of the queries and keys of each head (arXiv 2302.05442). layer_scale:
    the initial value of a learnt factor for each channel of a residual (arXiv 2103.17239), 0 for none. causal: tokens
    see only those before.

    In training: dropout after attention and MLP. drop_path: whole residuals of a row dropped with a probability that
    grows linearly from 0 in the first block to this in the last (arXiv 1603.09382). drop_key: pairs of query and key
    masked before the softmax, each head for itself (DropKey, arXiv 2208.02646), at the same rate in all blocks or with
    drop_key_schedule "linear" falling from this rate to 0 in the last block.

    scan: one compiled block run `depth` times over stacked parameters, which compiles faster and takes one more copy of
    them; parameters are stored alike. remat: "full" recomputes blocks in the backward pass, all but what remat_save
    names (of `SAVEABLE`), and "dots" all but their matrix products. attention: "xla", or "cudnn" for the fused kernel
    on GPUs, which takes bfloat16. dtype: of the computation; parameters and norms are float32.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    hidden: int = 0
    activation: Activation = "gelu"
    swiglu: bool = False
    norm_first: bool = True
    epsilon: float = 1e-6
    qkv_bias: bool = True
    qk_norm: bool = False
    layer_scale: float = 0.0
    causal: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0
    drop_key: float = 0.0
    drop_key_schedule: Literal["constant", "linear"] = "constant"
    scan: bool = False
    remat: Literal["none", "dots", "full"] = "none"
    remat_save: tuple[str, ...] = ()
    attention: Literal["xla", "cudnn"] = "xla"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        name = getattr(self, "name", "transformer")
        if self.width % self.heads:
            raise UserError(f"a {name}'s width={self.width} must divide by its heads={self.heads}")
        for rate in ("dropout", "drop_path", "drop_key"):
            if not 0.0 <= getattr(self, rate) < 1.0:
                raise UserError(f"a {name}'s {rate}={getattr(self, rate)} must be in [0, 1)")
        if self.attention == "cudnn" and (self.dtype != "bfloat16" or self.drop_key):
            raise UserError(f"a {name} with attention='cudnn' needs dtype='bfloat16' and no drop_key")
        for saved in self.remat_save:
            check_choice(f"activation in a {name}'s remat_save", saved, SAVEABLE)
        if self.remat_save and self.remat != "full":
            raise UserError(f"a {name}'s remat_save={self.remat_save} needs remat='full', which recomputes the rest")

    @property
    def mlp_hidden(self) -> int:
        """The width of the MLP's hidden layer."""
        return self.hidden or int(self.width * self.mlp_ratio)


class Chance(NamedTuple):
    """The randomness of one block in training. key: of the block. rows: int32[b], global. The rates may be traced."""

    key: jax.Array
    rows: jax.Array
    drop_path: float | jax.Array
    drop_key: float | jax.Array


class Attention(nn.Module):
    """Multi-head attention of `x_bqd` to `y_bkd`; of a sequence to itself where both are the same.

    Attention maps, float32[b, H, q, k], are sown as "attention" where "intermediates" is mutable.
    """

    config: BlocksConfig

    @nn.compact
    def __call__(self, x_bqd, y_bkd, lengths=None, keep=None, chance: Chance | None = None) -> jax.Array:
        """lengths: int32[b], keys from there on are padding. keep: bool[b, k], keys to attend to."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        split = dividing("heads", c.heads, "uneven heads")
        sources = {"query": x_bqd, "key": y_bkd, "value": y_bkd}
        heads = {}
        for name, source in sources.items():
            x = checkpoint_name(dense(c.width, ("embed", split), dtype, name, c.qkv_bias)(source), name)
            x = x.reshape(*x.shape[:2], c.heads, c.width // c.heads)
            heads[name] = constrain(x, "batch", "tokens", split, None)
        if c.qk_norm:
            for name in ("query", "key"):
                heads[name] = layer_norm(c.epsilon, f"{name}_norm")(heads[name]).astype(dtype)
        b, q, k = *x_bqd.shape[:2], y_bkd.shape[1]
        mask = None if keep is None else keep[:, None, None, :]
        if chance is not None and c.drop_key:
            kept = keep_mask(jax.random.fold_in(chance.key, 2), chance.rows, chance.drop_key, (c.heads, q, k))
            mask = kept if mask is None else mask & kept
        if self.is_mutable_collection("intermediates") and not self.is_initializing():
            self.sow(
                "intermediates", "attention", attention_maps(heads["query"], heads["key"], lengths, mask, c.causal)
            )
        out = self.weigh(*heads.values(), lengths, mask)
        out = checkpoint_name(out.reshape(b, q, c.width), "attention")
        return checkpoint_name(dense(c.width, (split, "embed"), dtype, "out")(out), "out")

    def weigh(self, query, key, value, lengths, mask) -> jax.Array:
        """[b, q, H, K]: the values as the attention maps weigh them, without the maps where a kernel needs none;
        apart, so that `medjax.models.inspection` can put the maps in its place."""
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=mask,
            key_value_seq_lengths=lengths,
            is_causal=self.config.causal,
            implementation=self.config.attention,
        )


def attention_maps(query: jax.Array, key: jax.Array, lengths, mask, causal: bool) -> jax.Array:
    """float32[b, H, q, k]: what attention weighs the values with. query, key: [b, L, H, K], as `Attention.weigh`
    takes them."""
    scores = jnp.einsum("bqhk,bshk->bhqs", query, key, preferred_element_type=jnp.float32) / query.shape[-1] ** 0.5
    place = jnp.arange(key.shape[1])
    allowed = jnp.ones(scores.shape, bool) if mask is None else jnp.broadcast_to(mask, scores.shape)
    if lengths is not None:
        allowed &= (place[None] < lengths[:, None])[:, None, None]
    if causal:
        allowed &= (place[None] <= jnp.arange(query.shape[1])[:, None])[None, None]
    return jax.nn.softmax(jnp.where(allowed, scores, jnp.finfo(jnp.float32).min), axis=-1)


class Mlp(nn.Module):
    """Two linear layers with an activation between, or a gated one."""

    config: BlocksConfig

    @nn.compact
    def __call__(self, x_bld: jax.Array) -> jax.Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden = checkpoint_name(dense(c.mlp_hidden, ("embed", "mlp"), dtype, "up")(x_bld), "up")
        if c.swiglu:
            gate = checkpoint_name(dense(c.mlp_hidden, ("embed", "mlp"), dtype, "gate")(x_bld), "gate")
            hidden = nn.silu(gate) * hidden
        else:
            hidden = ACTIVATIONS[c.activation](hidden)
        hidden = constrain(hidden, "batch", "tokens", dividing("mlp", c.mlp_hidden))
        return checkpoint_name(dense(x_bld.shape[-1], ("mlp", "embed"), dtype, "down")(hidden), "down")


class Block(nn.Module):
    """Attention and MLP, each with a residual."""

    config: BlocksConfig

    @nn.compact
    def __call__(self, x_bld, lengths, keep, chance: Chance | None) -> jax.Array:
        attention, mlp = Attention(self.config, name="attention"), Mlp(self.config, name="mlp")
        x = self._residual(x_bld, "attention", lambda y: attention(y, y, lengths, keep, chance), chance)
        x = self._residual(x, "mlp", mlp, chance)
        return constrain(x, "batch", "tokens", "embed")

    def _residual(self, x: jax.Array, name: str, layer, chance: Chance | None) -> jax.Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        norm = layer_norm(c.epsilon, f"norm_{name}")
        change = layer(norm(x).astype(dtype) if c.norm_first else x)
        if c.layer_scale:
            init = named(nn.initializers.constant(c.layer_scale), "embed")
            scale = self.param(f"scale_{name}", init, (c.width,))
            change = change * scale.astype(dtype)[None, None]
        if chance is not None:
            key = jax.random.fold_in(chance.key, ("attention", "mlp").index(name))
            if c.dropout:
                change = drop(change, jax.random.fold_in(key, 0), chance.rows, c.dropout)
            if c.drop_path:
                change = drop(change, jax.random.fold_in(key, 1), chance.rows, chance.drop_path, whole=True)
        return x + change if c.norm_first else norm(x + change).astype(dtype)


class Blocks(nn.Module):
    """A stack of blocks, `block_0`, `block_1`, ..."""

    config: BlocksConfig

    @nn.compact
    def __call__(self, x_bld, rows, train: bool, lengths=None, keep=None) -> jax.Array:
        """lengths: int32[b] of sequences padded on the right. keep: bool[b, L], the tokens to attend to."""
        c = self.config
        key = self.make_rng("dropout") if train and (c.dropout or c.drop_path or c.drop_key) else None
        if c.scan and not self.is_initializing() and not self.is_mutable_collection("intermediates"):
            return self._scan(x_bld, rows, key, lengths, keep)
        block = Block if c.remat == "none" else nn.remat(Block, policy=_policy(c))
        rates = _rates(c)
        for i in range(c.depth):
            chance = None if key is None else Chance(jax.random.fold_in(key, i), rows, *rates[i])
            x_bld = block(c, name=f"block_{i}")(x_bld, lengths, keep, chance)
        return x_bld

    def _scan(self, x_bld, rows, key, lengths, keep) -> jax.Array:
        c, block = self.config, Block(self.config, parent=None)
        params = [self.variables["params"][f"block_{i}"] for i in range(c.depth)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)

        def body(x, layer):
            p, i, rates = layer
            chance = None if key is None else Chance(jax.random.fold_in(key, i), rows, rates[0], rates[1])
            return block.apply({"params": p}, x, lengths, keep, chance), None

        if c.remat != "none":
            body = jax.checkpoint(body, policy=_policy(c))
        return jax.lax.scan(body, x_bld, (stacked, jnp.arange(c.depth), jnp.asarray(_rates(c), jnp.float32)))[0]


def _policy(c: BlocksConfig) -> Callable | None:
    """What a rematerialised block keeps; None for nothing."""
    if c.remat == "dots":
        return jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint_policies.save_only_these_names(*c.remat_save) if c.remat_save else None


def _rates(c: BlocksConfig) -> list[tuple[float, float]]:
    """(drop_path, drop_key) of each block."""
    last = max(c.depth - 1, 1)
    fall = [1.0 if c.drop_key_schedule == "constant" else 1.0 - i / last for i in range(c.depth)]
    return [(c.drop_path * i / last, c.drop_key * fall[i]) for i in range(c.depth)]
