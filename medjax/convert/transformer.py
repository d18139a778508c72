"""The rules of a stack of transformer blocks, given how others call its parts."""

import re
from collections.abc import Iterable, Iterator, Mapping

from medjax.convert.rules import Rule, joined, linear, norm
from medjax.models.blocks import BlocksConfig

_QKV = ("query", "key", "value")


def depth_of(keys: Iterable[str], prefix: str) -> int:
    """How many modules are numbered after a prefix, such as "blocks."."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({found[1] for key in keys if (found := pattern.match(key))})


def block_rules(c: BlocksConfig, names: Mapping[str, str], prefix: str) -> tuple[Rule, ...]:
    """The rules of all blocks of a tower.

    names: their name of each of our parts: "attention/query", "mlp/up", "norm_mlp", "scale_mlp" and so on; layers that
    they keep as one stand under "attention/qkv" or "mlp/gate_up" as (weight, bias). prefix: of a block, with its
    number as `{i}`.
    """
    ours = "params/blocks/block_{i}"
    return tuple(rule.under(ours, prefix) for rule in _block(c, names))


def _block(c: BlocksConfig, names: Mapping[str, str]) -> Iterator[Rule]:
    yield from attention_rules(c, names)
    yield from mlp_rules(c, names)
    for part in ("attention", "mlp"):
        yield from norm(f"norm_{part}", names[f"norm_{part}"])
        if c.layer_scale:
            yield Rule(f"scale_{part}", names[f"scale_{part}"])


def attention_rules(c: BlocksConfig, names: Mapping[str, str]) -> Iterator[Rule]:
    """The rules of the four linear layers of attention, and the norms of queries and keys."""
    if "attention/qkv" in names:
        weights, biases = joined([f"attention/{x}" for x in _QKV], *names["attention/qkv"])
        yield from (weights, biases) if c.qkv_bias else (weights,)
    else:
        for part in _QKV:
            yield from linear(f"attention/{part}", names[f"attention/{part}"], c.qkv_bias)
    yield from linear("attention/out", names["attention/out"])
    if c.qk_norm:
        for part in ("query_norm", "key_norm"):
            yield from norm(f"attention/{part}", names[f"attention/{part}"])


def mlp_rules(c: BlocksConfig, names: Mapping[str, str]) -> Iterator[Rule]:
    """The rules of the two or three linear layers of an MLP."""
    if not c.swiglu:
        yield from linear("mlp/up", names["mlp/up"])
    elif "mlp/gate_up" in names:
        yield from joined(["mlp/gate", "mlp/up"], *names["mlp/gate_up"])
    else:
        for part in ("gate", "up"):
            yield from linear(f"mlp/{part}", names[f"mlp/{part}"])
    yield from linear("mlp/down", names["mlp/down"])
