"""A whole recipe, checked before any device is touched."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from medjax.config import build, merge, to_dict
from medjax.data import DataConfig
from medjax.errors import UserError, suggest
from medjax.sharding import MeshConfig
from medjax.training.durations import Clock, take_durations
from medjax.training.optimizer import OptimizerConfig

_TRAIN_DURATIONS = ("total", "log_every", "eval_every", "checkpoint_every")
_STAGE_SECTIONS = ("data", "method", "optimizer", "train")


@dataclass(frozen=True)
class TrainConfig:
    """best_metric: validation metric that chooses the best checkpoint; smaller is better if its name ends in "loss".
    keep: latest checkpoints to keep. max_bad_steps: updates in a row that may be skipped because loss or gradient is
    not finite. wandb_project: also log there (needs wandb). Durations: total, log_every, eval_every, checkpoint_every.
    """

    best_metric: str = "validation/loss"
    keep: int = 2
    max_bad_steps: int = 10
    wandb_project: str = ""


@dataclass(frozen=True)
class WarmStart:
    """Start from the parameters of another run. dir: its workdir. include: regular expression of the paths to take."""

    dir: str = ""
    include: str = "towers/.*"


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
    warm_start: WarmStart
    durations: dict[str, tuple[float, str]]
    resolved: dict[str, Any]
    pretrained: dict[str, str] = field(default_factory=dict)

    def steps(self, examples: int, step: int = 0, seen: int = 0) -> dict[str, int]:
        """Total, log_every, eval_every, checkpoint_every and warmup in steps, for a training split of so many
        examples; 0 means never. A run that goes on from `step`, with `seen` examples behind it in batches of any size,
        has the rest of its epochs or examples before it."""
        clock = Clock(self.data.batch_size, examples)
        value, unit = self.durations["total"]
        total = clock.steps(value, unit)
        if seen and unit in ("epochs", "examples"):
            left = value * (examples if unit == "epochs" else 1) - seen
            total = step + clock.steps(max(left, 0), "examples")
        clock = Clock(self.data.batch_size, examples, total)
        names = (*_TRAIN_DURATIONS, "warmup")
        return {n: clock.steps(*self.durations[n]) if n in self.durations else 0 for n in names} | {"total": total}

    def starting_from(self, workdir: Path) -> "Experiment":
        """The same, with the towers of another run to start from."""
        changes = {"dir": str(workdir), "include": self.warm_start.include}
        return replace(self, warm_start=WarmStart(**changes), resolved={**self.resolved, "warm_start": changes})


_DEFAULTS = {
    "data": DataConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "mesh": MeshConfig,
    "warm_start": WarmStart,
}


def with_defaults(config: ConfigDict) -> ConfigDict:
    """A recipe with every option that it leaves at its default, so that the command line can set them all."""
    for section, cls in _DEFAULTS.items():
        given = config.get(section, ConfigDict())
        for f in fields(cls):
            if f.name not in given and f.default is not MISSING:
                given[f.name] = f.default
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
    optimizer, warmup = take_durations(sections.optimizer, ("warmup",), "config.optimizer")
    if "total" not in durations:
        raise UserError("config.train needs total_steps, total_epochs or total_examples")
    return Experiment(
        seed=sections.seed,
        data=build(DataConfig, sections.data, "config.data"),
        method=sections.method,
        optimizer=build(OptimizerConfig, optimizer, "config.optimizer"),
        train=build(TrainConfig, train, "config.train"),
        mesh=sections.mesh,
        warm_start=sections.warm_start,
        durations=durations | warmup,
        resolved=config,
    )
