"""Loaded weights for pictures of another size or of one channel."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax.convert.rules import flatten, unflatten
from medjax.errors import UserError
from medjax.models.pair import Pair
from medjax.models.positions import resize_positions


def adapted(
    module: Any, variables: dict[str, Any], image_size: int | tuple[int, int] | None, channels: int | None
) -> tuple[Any, dict[str, Any]]:
    """The module and its variables, positions resized to the grid of `image_size` and the stem summed over channels.

    Raises:
      UserError: a size that does not divide into patches, another number of channels than 1, or no pictures at all.
    """
    if isinstance(module, Pair):
        own = {k: v["image"] for k, v in variables.items() if "image" in v}
        image, own = adapted(module.image, own, image_size, channels)
        variables = {k: v | ({"image": own[k]} if k in own else {}) for k, v in variables.items()}
        return module.clone(image=image), _arrays(variables)
    if (image_size is not None or channels is not None) and not hasattr(module.config, "channels"):
        raise UserError("image_size and channels are for encoders of pictures; leave them out")
    leaves, config = flatten(variables), module.config
    if image_size is not None and hasattr(config, "grid"):
        config = _resized(leaves, config, image_size)
    if channels is not None and channels != config.channels:
        config = _summed(leaves, config, channels)
    return module.clone(config=config), _arrays(unflatten(leaves))


def _arrays(variables: dict[str, Any]) -> dict[str, Any]:
    return unflatten({path: jnp.asarray(x) for path, x in flatten(variables).items()})


def _resized(leaves: dict[str, Any], config: Any, image_size: int | tuple[int, int]) -> Any:
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if any(side % config.patch for side in size):
        raise UserError(f"image_size={image_size} does not divide into patches of {config.patch}")
    grid = tuple(side // config.patch for side in size)
    table = jnp.asarray(leaves["params/positions"][0])
    leaves["params/positions"] = resize_positions(table, config.grid, grid, config.antialias)[None]
    return dataclasses.replace(config, grid=grid)


def _summed(leaves: dict[str, Any], config: Any, channels: int) -> Any:
    if channels != 1:
        raise UserError(f"a stem of {config.channels} channels can be adapted to 1 channel, not to {channels}")
    flat = hasattr(config, "patch")
    stem = "params/patch_embed/kernel" if flat else "params/stem/conv/kernel"
    kernel = np.asarray(leaves[stem])
    x = kernel.reshape(-1, config.channels, kernel.shape[-1]).sum(axis=1)
    leaves[stem] = x if flat else x.reshape(*kernel.shape[:2], 1, kernel.shape[-1])
    return dataclasses.replace(config, channels=1)
