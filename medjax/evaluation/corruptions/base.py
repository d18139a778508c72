"""What a corruption is: a raw item of one kind of modality, made worse in one way, to one of five degrees."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.data.manifest import Modality

LEVELS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """apply: (raw item, parameter, rng, schema of the modality) -> raw item. severities: the parameter at levels 1 to
    5. monotone: each level changes an item more than the one before, in the mean of absolute differences.
    """

    name: str
    apply: Callable[[Any, Any, np.random.Generator, Modality], Any]
    severities: tuple[Any, ...]
    monotone: bool = True

    def __call__(self, item: Any, level: int, schema: Modality, seed: int, index: int, number: int = 0) -> Any:
        """The item at a level; a pure function of what is passed.

        index: of the example in its split. number: of the item in its example. The random numbers do not depend on
        the level, so that levels 1 to 5 of an item are the same accident, ever heavier.
        """
        rng = np.random.default_rng([seed, index, number, zlib.crc32(self.name.encode())])
        return self.apply(item, self.severities[level - 1], rng, schema)
