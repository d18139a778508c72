"""A whole recipe, checked before any device is touched."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from medjax.config import build, merge, to_dict
from medjax.data import DataConfig
from medjax.errors import UserError, suggest
from medjax.sharding import MeshConfig
from medjax.training.durations import Clock, take_durations
from medjax.training.optimizer import OptimizerConfig
from medjax.training.precision import BlockOptions, Precision, with_computation
from medjax.training.schedules import DURATIONS, TIMESCALE, durations_of

_TRAIN_DURATIONS = ("total", "log_every", "eval_every", "checkpoint_every")
_STAGE_SECTIONS = ("data", "method", "optimizer", "train")


@dataclass(frozen=True)
class TrainConfig:
    """best_metric: validation metric that chooses the best checkpoint; smaller is better if its name ends in "loss".
    keep: latest checkpoints to keep. max_bad_steps: updates in a row that may be skipped because loss or gradient is
    not finite. wandb_project: also log there (needs wandb). peak_flops: FLOP/s that one device can do at most, for the
    model FLOPs utilisation of devices whose data sheet medjax does not know; 0 takes the data sheet's. profile_steps:
    "10:15" traces the steps 10 to 15. Durations: total, log_every, eval_every, checkpoint_every.

    micro_batch: examples that each device encodes at once, 0 for all it has; gradients stay those of the whole batch.
    ema_decay: of a moving average of the weights, such as 0.9999; 0 keeps none. weights: which of the two validation
    scores, "raw" or "ema", and with it the best checkpoint.

    keep_every_steps: checkpoints at multiples of it stay for ever, beside the latest; 0 keeps none of them.
    async_checkpoints: training goes on while one is written. restore_cast: a checkpoint of other floating-point dtypes
    is converted, and not refused.

    hang_seconds: a run in which no step (nor batch of an evaluation) ends for so long dumps the stacks of its threads,
    0 never; hang_action: "leave" then ends it with status 76, "report" does not. spike_deviations: a loss that is so
    many deviations (of the median, estimated robustly) above the median of the last `spike_window` is a spike, 0 for
    none. It is logged; with max_rollbacks the run goes back to its newest checkpoint, leaves out the examples up to the
    spike, and stops at a further one after so many.
    """

    best_metric: str = "validation/loss"
    keep: int = 2
    max_bad_steps: int = 10
    peak_flops: float = 0.0
    profile_steps: str = ""
    wandb_project: str = ""
    micro_batch: int = 0
    ema_decay: float = 0.0
    weights: Literal["raw", "ema"] = "raw"
    keep_every_steps: int = 0
    async_checkpoints: bool = True
    restore_cast: bool = False
    hang_seconds: float = 1800.0
    hang_action: Literal["leave", "report"] = "leave"
    spike_deviations: float = 0.0
    spike_window: int = 100
    max_rollbacks: int = 0

    def __post_init__(self):
        for name, least in (("max_bad_steps", 1), ("spike_window", 2), ("hang_seconds", 0), ("spike_deviations", 0)):
            if getattr(self, name) < least:
                raise UserError(f"config.train.{name}={getattr(self, name)} must be at least {least}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise UserError(f"config.train.ema_decay={self.ema_decay} must be in [0, 1); 0 keeps no average")
        if self.weights == "ema" and not self.ema_decay:
            raise UserError("config.train.weights='ema' needs an average; set config.train.ema_decay, such as 0.9999")


@dataclass(frozen=True)
class WarmStart:
    """Start from the parameters of another run. dir: its workdir. include: regular expression of the paths to take.
    ema: take their moving average, which the run must have kept. resize_positions: fit tables of positions of pictures
    to another number of patches, and not refuse them.
    """

    dir: str = ""
    include: str = "towers/.*"
    ema: bool = False
    resize_positions: bool = False


@dataclass(frozen=True)
class Sections:
    """The top level of a config file. stages: names of entries of `stage`, run in order; each is laid over the rest,
    and each but the first starts from the towers of the one before.
    """

    data: dict[str, Any]
    method: dict[str, Any]
    optimizer: dict[str, Any]
    train: dict[str, Any]
    seed: int = 0
    mesh: MeshConfig = field(default_factory=MeshConfig)
    precision: Precision = field(default_factory=Precision)
    blocks: BlockOptions = field(default_factory=BlockOptions)
    warm_start: WarmStart = field(default_factory=WarmStart)
    stages: tuple[str, ...] = ()
    stage: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One stage of a recipe. `resolved` is what it was made from, as plain dicts. pretrained: folders of weights that
    towers start from, by modality, once `medjax.training.pretrained.settle` has made their options explicit.
    """

    seed: int
    data: DataConfig
    method: dict[str, Any]
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig
    precision: Precision
    blocks: BlockOptions
    warm_start: WarmStart
    durations: dict[str, tuple[float, str]]
    resolved: dict[str, Any]
    pretrained: dict[str, str] = field(default_factory=dict)

    def steps(self, examples: int, step: int = 0, seen: int = 0) -> dict[str, int]:
        """Total, log_every, eval_every, checkpoint_every and warmup in steps, with the other durations that are given,
        for a training split of so many examples; 0 means never. A run that goes on from `step`, with `seen` examples
        behind it in batches of any size, has the rest of its epochs or examples before it."""
        clock = Clock(self.data.batch_size, examples)
        value, unit = self.durations["total"]
        total = clock.steps(value, unit)
        if seen and unit in ("epochs", "examples"):
            left = value * (examples if unit == "epochs" else 1) - seen
            total = step + clock.steps(max(left, 0), "examples")
        clock = Clock(self.data.batch_size, examples, total)
        steps = {name: clock.steps(*duration) for name, duration in self.durations.items()}
        return dict.fromkeys((*_TRAIN_DURATIONS, "warmup"), 0) | steps | {"total": total}

    def starting_from(self, workdir: Path) -> "Experiment":
        """The same, with the towers of another run to start from."""
        warm = replace(self.warm_start, dir=str(workdir))
        return replace(self, warm_start=warm, resolved={**self.resolved, "warm_start": asdict(warm)})


_DEFAULTS = {
    "data": DataConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "mesh": MeshConfig,
    "precision": Precision,
    "blocks": BlockOptions,
    "warm_start": WarmStart,
}


# Durations that the command line can set although a recipe says nothing of them.
_DEFAULT_DURATIONS = {"optimizer": {"cooldown_percent": 0.0, "timescale_steps": TIMESCALE}}


def defaults() -> dict[str, dict[str, Any]]:
    """The options of every section that have a default."""
    options = {
        section: {f.name: f.default for f in fields(cls) if f.default is not MISSING}
        for section, cls in _DEFAULTS.items()
    }
    return merge(options, _DEFAULT_DURATIONS)


def with_defaults(config: ConfigDict) -> ConfigDict:
    """A recipe with every option that it leaves at its default, so that the command line can set them all."""
    for section, options in defaults().items():
        given = config.get(section, ConfigDict())
        _, durations = take_durations(given, DURATIONS, f"config.{section}")
        for name, default in options.items():
            if name not in given and name.rpartition("_")[0] not in durations:
                # Options whose default depends on others are numbers.
                given[name] = placeholder(float) if default is None else default
        config[section] = given
    return config


def stages(config: Mapping[str, Any]) -> list[tuple[str, Experiment]]:
    """The stages of a recipe in order; a recipe without stages is one, named "".

    Raises:
      UserError: anything wrong with the configuration, all of it named.
    """
    sections = build(Sections, config, "config")
    if not sections.stages:
        return [("", _experiment(to_dict(config)))]
    base = {k: v for k, v in to_dict(config).items() if k not in ("stages", "stage")}
    out = []
    for name in sections.stages:
        if name not in sections.stage:
            raise UserError(f"config.stages names {name!r}; {suggest(name, sections.stage)}")
        for key in sections.stage[name]:
            if key not in _STAGE_SECTIONS:
                raise UserError(f"config.stage.{name}.{key} cannot differ by stage; {suggest(key, _STAGE_SECTIONS)}")
        changes = dict(sections.stage[name])
        # A method is replaced as a whole: options of one mean nothing to another.
        merged = merge(base, {k: v for k, v in changes.items() if k != "method"})
        merged["method"] = changes.get("method", base["method"])
        out.append((name, _experiment(merged)))
    return out


def _experiment(config: dict[str, Any]) -> Experiment:
    sections = build(Sections, config, "config")
    train, durations = take_durations(sections.train, _TRAIN_DURATIONS, "config.train")
    optimizer, scheduled = take_durations(sections.optimizer, DURATIONS, "config.optimizer")
    optimizer = build(OptimizerConfig, optimizer, "config.optimizer")
    if "total" not in durations:
        raise UserError("config.train needs total_steps, total_epochs or total_examples")
    method = with_computation(sections.method, sections.precision, sections.blocks)
    return Experiment(
        seed=sections.seed,
        data=build(DataConfig, sections.data, "config.data"),
        method=method,
        optimizer=optimizer,
        train=build(TrainConfig, train, "config.train"),
        mesh=sections.mesh,
        precision=sections.precision,
        blocks=sections.blocks,
        warm_start=sections.warm_start,
        durations=durations | scheduled | durations_of(optimizer, optimizer.schedules),
        resolved=merge(config, {"optimizer": optimizer.rule}) | {"method": method},
    )
