"""Learning rates over the steps of a run, for all parameters or for those whose paths match a pattern."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import jax.numpy as jnp
import optax

from medjax.config import build
from medjax.errors import UserError
from medjax.training.durations import Duration, take_durations
from medjax.training.selection import first_match

# What `config.optimizer` says of the base schedule; entries of `schedules` may also wait.
DURATIONS = ("warmup", "cooldown", "timescale")
_OWN_DURATIONS = (*DURATIONS, "delay")
_ENTRIES = "config.optimizer.schedules"
TIMESCALE = 10_000  # arXiv 2106.04560, section 3.5
Entries = Sequence[tuple[str, Mapping[str, Any]]]
_FALLING = ("cosine", "linear", "polynomial")


@dataclass(frozen=True)
class ScheduleConfig:
    """lr: peak, reached after a linear warm-up from 0.

    schedule: what follows. "cosine", "linear" and "polynomial", `(1 - progress) ** power`, fall to `final_lr_fraction`
    of the peak at the end of the run. "constant" stays, and "rsqrt" falls as `1 / sqrt(1 + step / timescale)`; both
    take a cool-down, which multiplies them by a line from 1 to `final_lr_fraction` at the end of the run (arXiv
    2106.04560; "warmup-stable-decay" with "constant").
    """

    lr: float = 1e-3
    schedule: Literal["cosine", "linear", "polynomial", "rsqrt", "constant"] = "cosine"
    final_lr_fraction: float = 0.0
    power: float = 2.0


def make_schedule(
    config: ScheduleConfig,
    total_steps: int,
    warmup_steps: int,
    cooldown_steps: int = 0,
    timescale_steps: int = TIMESCALE,
    delay_steps: int = 0,
) -> optax.Schedule:
    """The learning rate at a step, 0 during the delay.

    Raises:
      UserError: a cool-down of what falls by itself, or no steps left between its parts.
    """
    before = delay_steps + warmup_steps
    if cooldown_steps and config.schedule in _FALLING:
        raise UserError(
            f"a learning rate with schedule={config.schedule!r} has no cool-down, since it falls to the end by itself; "
            "use schedule='constant' or 'rsqrt', or cooldown 0"
        )
    if (cooldown_steps or delay_steps) and before + cooldown_steps > total_steps:
        raise UserError(
            f"delay, warm-up and cool-down of a learning rate take {before + cooldown_steps} steps and the run has "
            f"{total_steps}; shorten them"
        )
    rest, final = max(total_steps - before, 1), config.lr * config.final_lr_fraction
    after = {
        "cosine": optax.cosine_decay_schedule(config.lr, rest, config.final_lr_fraction),
        "linear": optax.linear_schedule(config.lr, final, rest),
        "polynomial": optax.polynomial_schedule(config.lr, final, config.power, rest),
        "rsqrt": lambda step: config.lr / jnp.sqrt(1 + step / max(timescale_steps, 1)),
        "constant": optax.constant_schedule(config.lr),
    }[config.schedule]
    waiting, rising = optax.constant_schedule(0.0), optax.linear_schedule(0.0, config.lr, max(warmup_steps, 1))
    phases = [(s, n) for s, n in ((waiting, delay_steps), (rising, warmup_steps)) if n]
    if phases:
        ends = list(itertools.accumulate(n for _, n in phases))
        after = optax.join_schedules([*(s for s, _ in phases), after], ends)
    return _cooled(after, config.final_lr_fraction, total_steps, cooldown_steps) if cooldown_steps else after


def _cooled(schedule: optax.Schedule, final: float, total_steps: int, cooldown_steps: int) -> optax.Schedule:
    def cooled(step):
        left = jnp.clip((total_steps - step) / cooldown_steps, 0.0, 1.0)
        return schedule(step) * (final + (1.0 - final) * left)

    return cooled


@dataclass(frozen=True)
class LearningRates:
    """The schedules of a run. base: of parameters that no pattern matches. special: `{pattern: schedule}`. chosen:
    `{path: pattern}` of the parameters that one matches.
    """

    base: optax.Schedule
    special: Mapping[str, optax.Schedule] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_path(self) -> dict[str, optax.Schedule]:
        """The schedules of the parameters that do not take the base schedule."""
        return {name: self.special[pattern] for name, pattern in self.chosen.items()}


def learning_rates(
    config: ScheduleConfig, entries: Entries, steps: Mapping[str, int], names: Sequence[str]
) -> LearningRates:
    """All schedules of `config.optimizer`; of several patterns that match a parameter, the first counts.

    entries: `config.optimizer.schedules`. steps: "total" and, by the names of `durations_of`, what they have durations
    of. names: the paths of the parameters.

    Raises:
      UserError: a schedule that does not fit the run, or a pattern that matches nothing.
    """
    special = {p: _scheduled(_own(config, p, options)[0], steps, p) for p, options in entries}
    return LearningRates(_scheduled(config, steps, ""), special, first_match(special, names, _ENTRIES))


def durations_of(config: ScheduleConfig, entries: Entries) -> dict[str, Duration]:
    """The durations in `config.optimizer.schedules` by name and pattern, such as "warmup/towers/text/.*".

    Raises:
      UserError: an unknown option, or one of the wrong type.
    """
    return {f"{name}/{p}": d for p, options in entries for name, d in _own(config, p, options)[1].items()}


def _own(base: ScheduleConfig, pattern: str, options: Mapping[str, Any]) -> tuple[ScheduleConfig, dict[str, Duration]]:
    """The schedule of an entry, which says what differs from the base."""
    where = f"{_ENTRIES}[{pattern!r}]"
    rest, durations = take_durations(options, _OWN_DURATIONS, where)
    common = {f.name: getattr(base, f.name) for f in fields(ScheduleConfig)}
    return build(ScheduleConfig, {**common, **rest}, where), durations


def _scheduled(config: ScheduleConfig, steps: Mapping[str, int], pattern: str) -> optax.Schedule:
    found = {n: steps.get(f"{n}/{pattern}", steps.get(n)) for n in _OWN_DURATIONS}
    given = {f"{n}_steps": count for n, count in found.items() if count is not None}
    try:
        return make_schedule(config, steps["total"], **{"warmup_steps": 0, **given})
    except UserError as error:
        raise UserError(f"{_ENTRIES}[{pattern!r}]: {error}" if pattern else f"config.optimizer: {error}") from None
