"""Encoders as Linen modules with one calling convention: `tower(value, rows, train) -> Features`."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from medjax.config import build
from medjax.errors import UserError, check_choice
from medjax.models.base import Features
from medjax.models.bert import Bert, BertConfig
from medjax.models.tabular import MlpConfig, TabularMlp
from medjax.models.vit import VisionTransformer, VitConfig

# name -> (config, module, kind of modality it encodes)
TOWERS: dict[str, tuple[type, type[nn.Module], str]] = {
    "vit": (VitConfig, VisionTransformer, "image"),
    "ecg_vit": (VitConfig, VisionTransformer, "ecg"),
    "bert": (BertConfig, Bert, "text"),
    "mlp": (MlpConfig, TabularMlp, "labs"),
}

__all__ = ["TOWERS", "Features", "make_tower"]


def make_tower(modality: str, options: Mapping[str, Any], spec: Mapping[str, Any]) -> nn.Module:
    """The encoder of a modality.

    options: `config.method.towers.<modality>`, with its `name`. spec: the preprocessing of the modality
    (`Transform.spec`), which says its kind and, for text, the vocabulary's size.

    Raises:
      UserError: an unknown name or option, or an encoder of another kind of modality.
    """
    where = f"config.method.towers.{modality}"
    if "name" not in options:
        raise UserError(f"{where}.name is required; valid: {', '.join(sorted(TOWERS))}")
    check_choice(f"encoder in {where}.name", options["name"], TOWERS)
    config_class, module, kind = TOWERS[options["name"]]
    if spec["kind"] != kind:
        valid = ", ".join(sorted(n for n, (*_, k) in TOWERS.items() if k == spec["kind"]))
        raise UserError(
            f"{where}.name={options['name']!r} encodes {kind}, and {modality} is {spec['kind']}; valid: {valid}"
        )
    options = {k: options[k] for k in options}
    if kind == "text":
        options["vocab_size"] = spec["vocab_size"]
    return module(build(config_class, options, where))
