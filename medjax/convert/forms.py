"""How one weight differs between a Flax tree and a PyTorch state: axes, and what is kept together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Form(Protocol):
    """How an array differs between the two; a rule of several Flax leaves has a form that joins and splits them."""

    def torch(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
        """Of the Flax leaves the PyTorch array."""

    def flax(self, array: np.ndarray) -> Sequence[np.ndarray]:
        """The inverse."""


@dataclass(frozen=True)
class Permute:
    """Axes in another order: `torch = flax.transpose(order)`."""

    order: tuple[int, ...]

    def torch(self, leaves):
        """See `Form`."""
        return np.transpose(leaves[0], self.order)

    def flax(self, array):
        """See `Form`."""
        return (np.transpose(array, np.argsort(self.order)),)


@dataclass(frozen=True)
class Same:
    """The same array, with axes of length 1 put in front of it in Flax."""

    leading: int = 0

    def torch(self, leaves):
        """See `Form`."""
        return leaves[0].reshape(leaves[0].shape[self.leading :])

    def flax(self, array):
        """See `Form`."""
        return (array.reshape((1,) * self.leading + array.shape),)


@dataclass(frozen=True)
class Scalar:
    """[1] in PyTorch, [] in Flax."""

    def torch(self, leaves):
        """See `Form`."""
        return leaves[0].reshape(1)

    def flax(self, array):
        """See `Form`."""
        return (array.reshape(()),)


@dataclass(frozen=True)
class Patches:
    """A convolution without overlap, [D, C, *patch], and the linear layer on flattened patches, [patch * C, D].

    size: of a patch in PyTorch's axes, (height, width) or (depth, height, width).
    """

    size: tuple[int, ...]

    def torch(self, leaves):
        """See `Form`."""
        x = leaves[0].reshape(*self.size, -1, leaves[0].shape[-1])
        return np.moveaxis(x, (-1, -2), (0, 1))

    def flax(self, array):
        """See `Form`."""
        if array.shape[2:] != self.size:
            raise ValueError(f"patches of {array.shape[2:]} and not {self.size}")
        return (np.moveaxis(array, (0, 1), (-1, -2)).reshape(-1, array.shape[0]),)


@dataclass(frozen=True)
class Joined:
    """Several Flax leaves in one PyTorch array, one after the other along its first axis; each turned by `each`."""

    parts: int
    each: Form = field(default_factory=Same)

    def torch(self, leaves):
        """See `Form`."""
        return np.concatenate([self.each.torch([x]) for x in leaves])

    def flax(self, array):
        """See `Form`."""
        if len(array) % self.parts:
            raise ValueError(f"{len(array)} rows do not divide into {self.parts} parts")
        return tuple(self.each.flax(x)[0] for x in np.split(array, self.parts))


@dataclass(frozen=True)
class Rows:
    """Two Flax tables in one PyTorch table of positions: the class token's [1, 1, D] in the first row, the patches'
    [1, L, D] in the rest. leading: axes of length 1 in front in PyTorch."""

    leading: int = 1

    def torch(self, leaves):
        """See `Form`."""
        table = np.concatenate([x.reshape(-1, x.shape[-1]) for x in leaves])
        return table.reshape((1,) * self.leading + table.shape)

    def flax(self, array):
        """See `Form`."""
        table = array.reshape(-1, array.shape[-1])
        return table[None, :1], table[None, 1:]


LINEAR = Permute((1, 0))
CONV_1D = Permute((2, 1, 0))
CONV_2D = Permute((3, 2, 0, 1))
