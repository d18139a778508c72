"""The optimizer from configuration: AdamW, a schedule, clipping, and no decay where there should be none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from medjax.errors import UserError
from medjax.training.selection import path_name


@dataclass(frozen=True)
class OptimizerConfig:
    """lr: peak. schedule: after the linear warm-up (`warmup_steps` and so on) "cosine" or "linear" decay to
    `final_lr_fraction` of the peak, or "constant". clip_norm: of the whole gradient, 0 for none. weight_decay is
    decoupled, times the learning rate, and never on biases, norms and scales (fewer than two axes) or on parameters
    whose path matches `no_decay`.

    freeze: patterns of parameters that are not trained: they have no gradient, no moments and no decay. A locked text
    tower is ("towers/text/.*",); with LoRA in it, `lora/text/...` is still trained. All of a tower but its biases,
    which is bias="all" of peft: (r"towers/text/(?!.*bias$).*",). lr_multipliers: ((pattern, factor), ...) for the
    learning rate and with it the decay; the first that matches counts. layer_decay: learning rates that fall from the
    last block of a tower to its embeddings (`medjax.training.selection.layer_factors`); 1 for none. Patterns are
    regular expressions that match a whole path, such as "towers/text/blocks/block_0/mlp/up/kernel".
    """

    name: Literal["adamw"] = "adamw"
    lr: float = 1e-3
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    no_decay: tuple[str, ...] = (r"(positions|cls|mask_token)$",)
    freeze: tuple[str, ...] = ()
    lr_multipliers: tuple[tuple[str, float], ...] = ()
    layer_decay: float = 1.0

    def __post_init__(self):
        for pattern, factor in self.lr_multipliers:
            if factor <= 0:
                raise UserError(
                    f"config.optimizer.lr_multipliers: {factor} for {pattern!r} must be positive; "
                    "config.optimizer.freeze keeps parameters as they are"
                )
        if not 0.0 < self.layer_decay <= 1.0:
            raise UserError(f"config.optimizer.layer_decay={self.layer_decay} must be in (0, 1]; 1 is none")

    @property
    def selects(self) -> bool:
        """Whether parameters are treated differently by their paths beyond weight decay."""
        return bool(self.freeze or self.lr_multipliers) or self.layer_decay != 1.0


def make_schedule(config: OptimizerConfig, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """The learning rate at a step."""
    rest = max(total_steps - warmup_steps, 1)
    final = config.lr * config.final_lr_fraction
    after = {
        "cosine": optax.cosine_decay_schedule(config.lr, rest, config.final_lr_fraction),
        "linear": optax.linear_schedule(config.lr, final, rest),
        "constant": optax.constant_schedule(config.lr),
    }[config.schedule]
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, warmup_steps), after], [warmup_steps])


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, factors: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """Clipping, then AdamW, then `factors` of the learning rate by path (`medjax.training.selection.rate_factors`)."""
    adamw = optax.adamw(
        schedule, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=lambda p: decays(config, p)
    )
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    scale = [_scale_by(factors)] if factors else []
    return optax.chain(*clip, adamw, *scale) if clip or scale else adamw


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
