"""Heads that make a labelled picture or volume of the tokens of an encoder that is not trained with them."""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp


class SegmentationHead(nn.Module):
    """grid: [b, *G, D], tokens on their grid; picture: [b, *S, C], what the encoder saw -> logits float32[b, *S, K].

    kind "linear": K logits of each token, linearly interpolated between the tokens. kind "unetr", after UNETR (arXiv
    2103.10504) but smaller: the tokens of the last layer alone, transposed convolutions up to the size of the picture,
    and one skip connection, from the picture itself. width: of its layers.
    """

    kind: Literal["linear", "unetr"]
    classes: int
    width: int = 16

    @nn.compact
    def __call__(self, grid: jax.Array, picture: jax.Array) -> jax.Array:
        size = picture.shape[1:-1]
        if self.kind == "linear":
            x = nn.Dense(self.classes, name="out")(grid)
            return jax.image.resize(x, (x.shape[0], *size, self.classes), "linear")
        x = nn.Dense(self.width, name="in")(grid)
        for i, factors in enumerate(upsampling(grid.shape[1:-1], size)):
            x = nn.gelu(nn.ConvTranspose(self.width, factors, factors, name=f"up_{i}")(nn.LayerNorm()(x)))
        kernel = (3,) * len(size)
        skip = nn.gelu(nn.Conv(self.width, kernel, name="skip")(picture))
        x = nn.gelu(nn.Conv(self.width, kernel, name="both")(jnp.concatenate([x, skip], axis=-1)))
        return nn.Dense(self.classes, name="out")(x)


def upsampling(grid: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """By how much each layer enlarges each axis: two where that divides what is left, else all of it.

    Raises:
      ValueError: the picture is no multiple of the grid.
    """
    left, out = [s // g for s, g in zip(size, grid, strict=True)], []
    if [k * g for k, g in zip(left, grid, strict=True)] != list(size):
        raise ValueError(f"a picture of {size} is no multiple of a grid of {grid}")
    while math.prod(left) > 1:
        out.append(tuple(2 if k % 2 == 0 else k for k in left))
        left = [k // f for k, f in zip(left, out[-1], strict=True)]
    return out
