"""ResNets of Hugging Face, and of torchvision and timm: names of weights and sizes.

MGCA and BioViL keep torchvision's names under a prefix: `under("", "img_encoder_q.model", TORCHVISION)`, and
"encoder.encoder". The classifier behind the features, "fc" in torchvision, has no counterpart here.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.convert.forms import CONV_2D
from medjax.convert.layout import Layout
from medjax.convert.rules import Rule
from medjax.errors import UserError
from medjax.models.resnet import ResNetConfig

_STAGES = range(4)
_LAYERS = range(3)


@dataclass(frozen=True)
class Counter:
    """A count: int64 in PyTorch, int32 in Flax. Exact up to 2^24, since weights pass through float32."""

    def torch(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
        """Of the Flax leaf the PyTorch array."""
        return leaves[0].astype(np.int64)

    def flax(self, array: np.ndarray) -> Sequence[np.ndarray]:
        """The inverse."""
        return (array.astype(np.int32),)


def _conv_norm(flax: str, conv: str, norm: str) -> tuple[Rule, ...]:
    return (
        Rule(f"params/{flax}/conv/kernel", f"{conv}.weight", CONV_2D),
        Rule(f"params/{flax}/norm/scale", f"{norm}.weight"),
        Rule(f"params/{flax}/norm/bias", f"{norm}.bias"),
        Rule(f"batch_stats/{flax}/norm/mean", f"{norm}.running_mean"),
        Rule(f"batch_stats/{flax}/norm/var", f"{norm}.running_var"),
        Rule(f"batch_stats/{flax}/norm/batches", f"{norm}.num_batches_tracked", Counter()),
    )


def _hugging_face(flax: str, torch: str) -> tuple[Rule, ...]:
    return _conv_norm(flax, f"{torch}.convolution", f"{torch}.normalization")


# Flax paths are those of all variables, "params" and "batch_stats".
HUGGING_FACE: tuple[Rule, ...] = (
    *_hugging_face("stem", "embedder.embedder"),
    *_hugging_face("stage_{i}/block_{j}/layer_{k}", "encoder.stages.{i}.layers.{j}.layer.{k}"),
    *_hugging_face("stage_{i}/block_{j}/shortcut", "encoder.stages.{i}.layers.{j}.shortcut"),
)
# Stages and layers count from one.
TORCHVISION: tuple[Rule, ...] = (
    *_conv_norm("stem", "conv1", "bn1"),
    *(
        rule
        for i in _STAGES
        for k in _LAYERS
        for rule in _conv_norm(
            f"stage_{i}/block_{{j}}/layer_{k}", f"layer{i + 1}.{{j}}.conv{k + 1}", f"layer{i + 1}.{{j}}.bn{k + 1}"
        )
    ),
    *(
        rule
        for i in _STAGES
        for rule in _conv_norm(
            f"stage_{i}/block_{{j}}/shortcut", f"layer{i + 1}.{{j}}.downsample.0", f"layer{i + 1}.{{j}}.downsample.1"
        )
    ),
)


def options_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `medjax.models.resnet.ResNetConfig` from the config.json of a Hugging Face ResNet.

    Raises:
      UserError: an option that our ResNets do not have.
    """
    act, halved = config.get("hidden_act", "relu"), config.get("downsample_in_first_stage", False)
    if act != "relu" or halved:
        raise UserError(
            f"a ResNet with hidden_act={act!r}, downsample_in_first_stage={halved} cannot be read; valid: 'relu', False"
        )
    return {
        "name": "resnet",
        "block": config.get("layer_type", "bottleneck"),
        "depths": tuple(config.get("depths", (3, 4, 6, 3))),
        "channels": config.get("num_channels", 3),
        "stem": config.get("embedding_size", 64),
        "widths": tuple(config.get("hidden_sizes", (256, 512, 1024, 2048))),
        "downsample_in_bottleneck": config.get("downsample_in_bottleneck", False),
    }


def config_of(config: ResNetConfig, channels: int) -> dict[str, Any]:
    """The config.json of a Hugging Face ResNet; channels: of the first convolution.

    Raises:
      UserError: group norms, which Hugging Face's do not have.
    """
    if config.norm != "batch":
        raise UserError(f"Hugging Face has no ResNet with norm={config.norm!r}; only 'batch'")
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": channels,
        "embedding_size": config.stem,
        "hidden_sizes": list(config.stage_widths),
        "depths": list(config.depths),
        "layer_type": config.block,
        "hidden_act": "relu",
        "downsample_in_bottleneck": config.downsample_in_bottleneck,
    }


def options_of_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Options of `ResNetConfig` read off the shapes of a state with torchvision's names, without their prefix.

    Raises:
      UserError: these are no such names.
    """
    blocks = [set(re.findall(rf"^layer{i + 1}\.(\d+)\.", "\n".join(shapes), re.MULTILINE)) for i in _STAGES]
    if "conv1.weight" not in shapes or not all(blocks):
        raise UserError(
            f"no ResNet of torchvision's names: it needs conv1.weight and layer1 to layer4, got {', '.join(shapes)}"
        )
    bottleneck = "layer1.0.conv3.weight" in shapes
    last = 3 if bottleneck else 2
    return {
        "name": "resnet",
        "block": "bottleneck" if bottleneck else "basic",
        "depths": tuple(len(b) for b in blocks),
        "channels": shapes["conv1.weight"][1],
        "stem": shapes["conv1.weight"][0],
        "widths": tuple(shapes[f"layer{i + 1}.0.conv{last}.weight"][0] for i in _STAGES),
    }


def with_counters(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with `num_batches_tracked` zero where it is absent, as in files from before PyTorch 0.4.1."""
    means = (key for key in state if key.endswith(".running_mean"))
    counters = {f"{key.removesuffix('running_mean')}num_batches_tracked": np.zeros((), np.int64) for key in means}
    return counters | dict(state)


def layout(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`ResNetModel`."""
    options = {k: v for k, v in options_of_config(json).items() if k != "name"}
    return Layout("resnet", ResNetConfig(**options), HUGGING_FACE, (r"classifier\..*",))
