"""How a published architecture lies in a file: our configuration of it, and the table of its weights."""

from dataclasses import dataclass
from typing import Any

from medjax.convert.rules import Rule


@dataclass(frozen=True)
class Layout:
    """tower: name in `medjax.models.TOWERS`. config: of the tower. rules: paths of the whole variables dict, from
    "params/" on, and keys without any prefix that a larger model puts before them. ignored: regular expressions of keys
    that hold no weight of the encoder.
    """

    tower: str
    config: Any
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
