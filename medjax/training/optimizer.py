"""The optimizer from configuration: clipping, an update rule, decay where there should be some, and learning rates."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from medjax.errors import UserError
from medjax.training.schedules import LearningRates, ScheduleConfig, durations_of, learning_rates
from medjax.training.selection import frozen_names, path_name, rate_factors
from medjax.training.update_rules import OPTIONS, after_decay, direction

_CLIPS = ("clip_norm", "clip_value", "clip_ratio", "clip_update_rms")


@dataclass(frozen=True)
class OptimizerConfig(ScheduleConfig):
    """name: the update rule (`medjax.training.update_rules`). b1, b2, eps, momentum: its own options; None for its
    defaults. mu_dtype: of the first moment or momentum. Durations: warmup, cooldown, and timescale of "rsqrt". Learning
    rates: `medjax.training.schedules`.

    weight_decay is decoupled, times the learning rate, and never on biases, norms and scales (fewer than two axes) or
    on parameters whose path matches `no_decay`.

    Clipping, 0 for none. clip_value: of each element of the gradient. clip_ratio: of the gradient of each unit, such as
    a column of a kernel, to this multiple of the norm of its weights (AGC, arXiv 2102.06171). clip_norm: of the whole
    gradient. clip_update_rms: of each parameter's update before decay and learning rate, to this root mean square
    (arXiv 1804.04235, section 6); Adafactor, whose default is 1, does so before its momentum.

    freeze: patterns of parameters that are not trained: they have no gradient, no moments and no decay. A locked text
    tower is ("towers/text/.*",); with LoRA in it, `lora/text/...` is still trained. All of a tower but its biases,
    which is bias="all" of peft: (r"towers/text/(?!.*bias$).*",). schedules: ((pattern, options), ...), of parameters
    whose learning rate goes otherwise: options of `ScheduleConfig` and durations, also `delay`, before which the rate
    is 0; what is not said is as for all. lr_multipliers: ((pattern, factor), ...) for the learning rate and with it the
    decay. Of both the first pattern that matches counts. layer_decay: learning rates that fall from the last block of a
    tower to its embeddings (`medjax.training.selection.layer_factors`); 1 for none. Patterns are regular expressions
    that match a whole path, such as "towers/text/blocks/block_0/mlp/up/kernel".
    """

    name: Literal["adamw", "lamb", "lion", "adafactor", "muon", "sgd"] = "adamw"
    b1: float | None = None
    b2: float | None = None
    eps: float | None = None
    momentum: float | None = None
    mu_dtype: Literal["float32", "bfloat16"] = "float32"
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    clip_value: float = 0.0
    clip_ratio: float = 0.0
    clip_update_rms: float | None = None
    no_decay: tuple[str, ...] = (r"(positions|cls|mask_token)$",)
    freeze: tuple[str, ...] = ()
    schedules: tuple[tuple[str, dict[str, Any]], ...] = ()
    lr_multipliers: tuple[tuple[str, float], ...] = ()
    layer_decay: float = 1.0

    def __post_init__(self):
        own = OPTIONS[self.name]
        for option in ("b1", "b2", "eps", "momentum"):
            if getattr(self, option) is not None and option not in own:
                has = ", ".join(name for name, options in OPTIONS.items() if option in options)
                raise UserError(
                    f"config.optimizer.{option}={getattr(self, option)} is an option of {has}; {self.name} has "
                    f"{', '.join(own)}; leave it out"
                )
        for option in _CLIPS:
            if (getattr(self, option) or 0.0) < 0.0:
                raise UserError(f"config.optimizer.{option}={getattr(self, option)} must not be negative; 0 is none")
        durations_of(self, self.schedules)
        for pattern, factor in self.lr_multipliers:
            if factor <= 0:
                raise UserError(
                    f"config.optimizer.lr_multipliers: {factor} for {pattern!r} must be positive; "
                    "config.optimizer.freeze keeps parameters as they are"
                )
        if not 0.0 < self.layer_decay <= 1.0:
            raise UserError(f"config.optimizer.layer_decay={self.layer_decay} must be in (0, 1]; 1 is none")

    @property
    def rule(self) -> dict[str, float]:
        """The options of the update rule, given or by default."""
        return {k: v if getattr(self, k) is None else getattr(self, k) for k, v in OPTIONS[self.name].items()}

    @property
    def selects(self) -> bool:
        """Whether parameters are treated differently by their paths beyond weight decay."""
        return bool(self.freeze or self.schedules or self.lr_multipliers) or self.layer_decay != 1.0


@dataclass(frozen=True)
class Optimizer:
    """tx: from gradients of the parameters that are trained to their updates. frozen: paths of the others."""

    tx: optax.GradientTransformation
    rates: LearningRates
    frozen: frozenset[str]

    @classmethod
    def create(
        cls, config: OptimizerConfig, steps: Mapping[str, int], names: Callable[[], Sequence[str]]
    ) -> "Optimizer":
        """steps: "total" and those of the durations. names: gives the paths of all parameters; called only if patterns
        are to be matched with them.

        Raises:
          UserError: schedules that do not fit the run, or patterns that do not fit the parameters.
        """
        paths = tuple(names()) if config.selects else ()
        rates = learning_rates(config, config.schedules, steps, paths)
        factors = rate_factors(config.lr_multipliers, config.layer_decay, paths)
        tx = make_optimizer(config, rates.base, factors, rates.by_path)
        return cls(tx, rates, frozen_names(config.freeze, paths))


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    factors: Mapping[str, float] | None = None,
    schedules: Mapping[str, optax.Schedule] | None = None,
) -> optax.GradientTransformation:
    """Clipping, the update rule, decay, the learning rate.

    factors: of the learning rate by path (`medjax.training.selection.rate_factors`). schedules: in the place of
    `schedule` by path. Moments are float32 whatever the parameters are; `mu_dtype` says otherwise of the first.
    """
    rule = config.rule
    clip_update = 0.0 if "clip_update_rms" in rule else config.clip_update_rms
    update = optax.chain(
        direction(config.name, rule, jnp.dtype(config.mu_dtype)),
        *([optax.clip_by_block_rms(clip_update)] if clip_update else []),
        optax.add_decayed_weights(config.weight_decay, lambda p: decays(config, p)),
        *after_decay(config.name),
        _scale_by_schedules(schedule, schedules) if schedules else optax.scale_by_learning_rate(schedule),
    )
    clip = [
        *([optax.clip(config.clip_value)] if config.clip_value else []),
        *([optax.adaptive_grad_clip(config.clip_ratio)] if config.clip_ratio else []),
        *([optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []),
    ]
    scale = [_scale_by(factors)] if factors else []
    return _in_float32(optax.chain(*clip, update, *scale) if clip or scale else update)


def _in_float32(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Second moments of bfloat16 would stand still: what a step adds to them is less than their last digit."""

    def wide(tree):
        return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

    return optax.GradientTransformation(
        lambda params: tx.init(wide(params)),
        lambda updates, state, params=None: tx.update(wide(updates), state, None if params is None else wide(params)),
    )


def _scale_by_schedules(
    schedule: optax.Schedule, schedules: Mapping[str, optax.Schedule]
) -> optax.GradientTransformation:
    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        def one(path, x):
            return -schedules.get(path_name(path), schedule)(state.count) * x

        updates = jax.tree_util.tree_map_with_path(one, updates)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def _scale_by(factors: Mapping[str, float]) -> optax.GradientTransformation:
    def one(path, update):
        factor = factors.get(path_name(path), 1.0)
        return update if factor == 1.0 else update * factor

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(one, updates))


def decays(config: OptimizerConfig, params: Any) -> Any:
    """The tree of bools that says which parameters are decayed."""
    patterns = [re.compile(p) for p in config.no_decay]

    def one(path, x):
        return x.ndim >= 2 and not any(p.search(path_name(path)) for p in patterns)

    return jax.tree_util.tree_map_with_path(one, params)
