"""Encoders written as another architecture that computes the same: what it has besides is set to do nothing."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax.convert.rules import flatten, unflatten
from medjax.models.positions import resize_positions, sincos_positions
from medjax.models.vit import VitConfig

Leaves = dict[str, np.ndarray]
# How a tower is trained and computed, or what other options say in full.
_NOT_COMPARED = {
    *("name", "variant", "dtype", "scan", "remat", "attention", "antialias"),
    *("dropout", "drop_path", "drop_key", "drop_key_schedule", "patch_dropout"),
    *("hidden", "mlp_ratio", "cls", "widths", "groups", "frozen_statistics"),
}
_IN_FULL = ("mlp_hidden", "has_cls", "stage_widths")


def with_sizes(config: Any, variables: Mapping[str, Any], size: int, channels: int) -> tuple[Any, dict[str, Any]]:
    """A tower of pictures that says its channels and grid, its positions a table for pictures of `size` pixels.

    channels: of the data.
    """
    leaves = _leaves(variables)
    config = dataclasses.replace(config, channels=config.channels or channels)
    if not isinstance(config, VitConfig):
        return config, unflatten(leaves)
    grid = (size // config.patch,) * 2
    if config.positions == "sincos":
        leaves["params/positions"] = sincos_positions(grid, config.width)[None]
    else:
        table = leaves["params/positions"][0]
        old = config.grid or (round(len(table) ** 0.5),) * 2
        leaves["params/positions"] = np.asarray(resize_positions(jnp.asarray(table), old, grid, config.antialias))[None]
    return dataclasses.replace(config, positions="learned", grid=grid), unflatten(leaves)


def written_as(ours: Any, theirs: Any, variables: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The variables of `theirs`, a configuration, that compute what `ours` does, and the options that stand in the way,
    as "pool='mean' (there 'cls')"."""
    leaves, differences = _leaves(variables), []
    names = [f.name for f in dataclasses.fields(theirs) if f.name not in _NOT_COMPARED]
    for name in (*names, *(n for n in _IN_FULL if hasattr(theirs, n))):
        a, b = getattr(ours, name), getattr(theirs, name)
        if a == b or (name == "cls_position" and not ours.has_cls):
            continue
        if name in _CHANGES and _CHANGES[name](a, b, ours, leaves):
            continue
        differences.append(f"{name}={a!r} (there {b!r})")
    return unflatten(leaves), differences


def _leaves(variables: Mapping[str, Any]) -> Leaves:
    return {path: np.asarray(x) for path, x in flatten(variables).items()}


def _class_position(a: bool, b: bool, c: Any, leaves: Leaves) -> bool:
    if b:
        leaves["params/cls_position"] = np.zeros_like(leaves["params/cls"])
    return b


def _layer_scale(a: float, b: float, c: Any, leaves: Leaves) -> bool:
    if b and not a:
        names = (f"params/blocks/block_{i}/scale_{part}" for i in range(c.depth) for part in ("attention", "mlp"))
        leaves.update((name, np.ones(c.width, np.float32)) for name in names)
    return bool(b)


def _mask_token(a: bool, b: bool, c: Any, leaves: Leaves) -> bool:
    """It has no part in encoding."""
    if b:
        leaves["params/mask_token"] = np.zeros((1, c.width), np.float32)
    else:
        del leaves["params/mask_token"]
    return True


def _types(a: int, b: int, c: Any, leaves: Leaves) -> bool:
    if a:
        return False
    leaves["params/types"] = np.zeros((b, c.width), np.float32)
    return True


def _pooler(a: Any, b: Any, c: Any, leaves: Leaves) -> bool:
    """A pooler that nothing is read from; zero, so that nobody takes what it gives for features."""
    if (a, b) == ("kept", "none"):
        del leaves["params/pooler/kernel"], leaves["params/pooler/bias"]
        return True
    if (a, b) != ("none", "kept"):
        return False
    leaves["params/pooler/kernel"] = np.zeros((c.width, c.width), np.float32)
    leaves["params/pooler/bias"] = np.zeros(c.width, np.float32)
    return True


def _qkv_bias(a: bool, b: bool, c: Any, leaves: Leaves) -> bool:
    for path in [path for path in leaves if b and path.endswith(("query/kernel", "key/kernel", "value/kernel"))]:
        leaves[path.removesuffix("kernel") + "bias"] = np.zeros(leaves[path].shape[-1], np.float32)
    return b


def _patch_bias(a: bool, b: bool, c: Any, leaves: Leaves) -> bool:
    """Where there is none, positions take it over."""
    if b:
        leaves["params/patch_embed/bias"] = np.zeros(c.width, np.float32)
    else:
        leaves["params/positions"] = leaves["params/positions"] + leaves.pop("params/patch_embed/bias")
    return True


# option -> (our value, theirs, our configuration, leaves to be changed) -> whether that could be done
_CHANGES: dict[str, Callable[[Any, Any, Any, Leaves], bool]] = {
    "cls_position": _class_position,
    "layer_scale": _layer_scale,
    "mask_token": _mask_token,
    "types": _types,
    "pooler": _pooler,
    "qkv_bias": _qkv_bias,
    "patch_bias": _patch_bias,
}
