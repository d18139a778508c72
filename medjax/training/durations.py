"""Durations in the unit at hand: `total_epochs=10`, `eval_every_steps=200`, `warmup_percent=5`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medjax.errors import UserError

UNITS = ("steps", "epochs", "examples", "percent")
Duration = tuple[float, str]  # value and unit


@dataclass(frozen=True)
class Clock:
    """What converts durations to steps. total_steps is needed for percentages only."""

    batch_size: int
    examples: int
    total_steps: int | None = None

    def steps(self, value: float, unit: str) -> int:
        """A duration in whole steps, at least 1 where it is above 0."""
        if unit == "steps":
            steps = value
        elif unit == "percent":
            if self.total_steps is None:
                raise UserError("the total duration cannot be a percentage; give steps, epochs or examples")
            steps = value / 100 * self.total_steps
        else:
            steps = value * (self.examples if unit == "epochs" else 1) / self.batch_size
        return max(math.ceil(steps - 1e-9), 1) if value > 0 else 0


def take_durations(
    options: Mapping[str, Any], names: Sequence[str], where: str
) -> tuple[dict[str, Any], dict[str, Duration]]:
    """Splits options into the rest and `{name: (value, unit)}` for keys `<name>_<unit>`.

    Raises:
      UserError: a name in two units, or a value that is no number or negative.
    """
    rest, found = {}, {}
    for key, value in options.items():
        name, _, unit = key.rpartition("_")
        if name not in names or unit not in UNITS:
            rest[key] = value
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise UserError(f"{where}.{key} must be a number of {unit}, got {value!r}")
        if name in found:
            raise UserError(f"{where}.{name} is given in {found[name][1]} and in {unit}; keep one")
        found[name] = (value, unit)
    return rest, found
