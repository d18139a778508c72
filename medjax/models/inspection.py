"""Looking inside an encoder and changing what is there, with not a word of it in the encoder itself."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Attention, attention_maps

# How an encoder computes, and not what: the parameters are the same, and so is the result but for rounding.
_PLAIN = {"scan": False, "remat": "none", "remat_save": (), "attention": "xla", "dtype": "float32"}


@contextlib.contextmanager
def changing(change: Callable[[str, Any], Any]) -> Iterator[None]:
    """Within it the output of every module becomes what `change(path, output)` gives, `output` itself if nothing shall
    change.

    path: "" for the Features of a whole encoder, "blocks/block_3" for [b, L, D] that leave a block, "stage_1" for the
    maps of a stage of a residual network, and "blocks/block_3/attention/maps" for float32[b, H, q, k], what attention
    weighs the values with, which are computed in full only here. A module that runs its parts in a loop of the program
    or recomputes them has no such paths, or gives values that cannot leave it: take `plain` ones.
    """

    def intercept(call, args, kwargs, context):
        path, method = "/".join(context.module.path), context.method_name
        if method == "weigh" and isinstance(context.module, Attention):
            query, key, value, lengths, mask = args
            maps = attention_maps(query, key, lengths, mask, context.module.config.causal)
            maps = change(f"{path}/maps", maps).astype(value.dtype)
            return jnp.einsum("bhqk,bkhd->bqhd", maps, value)
        output = call(*args, **kwargs)
        return change(path, output) if method == "__call__" else output

    with nn.intercept_methods(intercept):
        yield


def plain(module: nn.Module) -> nn.Module:
    """The same encoder with one operation after the other in float32: no loop over blocks, nothing recomputed, no fused
    kernel."""
    known = {f.name for f in fields(module.config)}
    return module.clone(config=replace(module.config, **{k: v for k, v in _PLAIN.items() if k in known}))
