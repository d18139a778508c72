"""The optimizer from configuration: AdamW, a schedule, clipping, and no decay where there should be none."""

import re
from dataclasses import dataclass
from typing import Literal

import jax
import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """lr: peak. schedule: after the linear warm-up (`warmup_steps` and so on) "cosine" or "linear" decay to
    `final_lr_fraction` of the peak, or "constant". clip_norm: of the whole gradient, 0 for none. weight_decay is
    decoupled, times the learning rate, and never on biases, norms and scales (fewer than two axes) or on parameters
    whose path matches `no_decay`.
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


def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clipping, then AdamW."""
    adamw = optax.adamw(
        schedule, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=lambda p: decays(config, p)
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def decays(config: OptimizerConfig, params):
    """The tree of bools that says which parameters are decayed."""
    patterns = [re.compile(p) for p in config.no_decay]

    def one(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return x.ndim >= 2 and not any(p.search(name) for p in patterns)

    return jax.tree_util.tree_map_with_path(one, params)
