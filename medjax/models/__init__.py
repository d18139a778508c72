"""Encoders as Linen modules with one calling convention: `tower(value, rows=None, train=False) -> Features`.

rows: int32[b], the global row of each; randomness in training depends on it. Further arguments say what is real of the
value: `lengths` of texts, `leads` of an ECG, `observed` of lab values.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from medjax.config import build
from medjax.errors import UserError, check_choice
from medjax.models.base import Features
from medjax.models.ecg import EcgTransformer, EcgVitConfig
from medjax.models.resnet import EcgImageResNet, EcgResNet, ResNet, ResNetConfig
from medjax.models.sizes import with_variant
from medjax.models.tabular import LabsTransformer, LabsTransformerConfig, MlpConfig, TabularMlp
from medjax.models.text import ClipTextConfig, RobertaConfig, SiglipTextConfig, TextTowerConfig, TextTransformer
from medjax.models.vit import VisionTransformer, VitConfig

# name -> (config, module, kinds of modality it encodes)
TOWERS: dict[str, tuple[type, type[nn.Module], tuple[str, ...]]] = {
    "vit": (VitConfig, VisionTransformer, ("image", "volume")),
    "resnet": (ResNetConfig, ResNet, ("image",)),
    "resnet_ecg": (ResNetConfig, EcgResNet, ("ecg",)),
    "resnet_ecg_image": (ResNetConfig, EcgImageResNet, ("ecg",)),
    "ecg_vit": (EcgVitConfig, EcgTransformer, ("ecg",)),
    "bert": (TextTowerConfig, TextTransformer, ("text",)),
    "roberta": (RobertaConfig, TextTransformer, ("text",)),
    "clip_text": (ClipTextConfig, TextTransformer, ("text",)),
    "siglip_text": (SiglipTextConfig, TextTransformer, ("text",)),
    "mlp": (MlpConfig, TabularMlp, ("labs",)),
    "labs_transformer": (LabsTransformerConfig, LabsTransformer, ("labs",)),
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
    config_class, module, kinds = TOWERS[options["name"]]
    if spec["kind"] not in kinds:
        valid = ", ".join(sorted(n for n, (*_, k) in TOWERS.items() if spec["kind"] in k))
        raise UserError(
            f"{where}.name={options['name']!r} encodes {' or '.join(kinds)}, and {modality} is {spec['kind']}; valid: "
            f"{valid}"
        )
    options = with_variant(options["name"], options, where)
    if spec["kind"] == "text":
        # A published table may have spare rows.
        options["vocab_size"] = max(options.get("vocab_size", 0), spec["vocab_size"])
    return module(build(config_class, options, where))
