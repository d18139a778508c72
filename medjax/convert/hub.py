"""Encoders as Hugging Face's models: which architecture computes what ours does, its config.json and its weights.

An architecture is tried by writing its config.json and reading that back as an import would: what then differs from
our configuration is what stands in the way.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.convert import hf_pair, hf_text, hf_vision, resnet
from medjax.convert.equivalent import with_sizes, written_as
from medjax.convert.layout import Layout
from medjax.convert.rules import Rule, to_torch
from medjax.errors import UserError
from medjax.models.lora import LoraConfig, peft_state
from medjax.models.resnet import ResNetConfig
from medjax.models.text import TextTowerConfig

# model_type -> class of transformers.
CLASSES = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "resnet": "ResNetModel",
    "bert": "BertModel",
    "roberta": "RobertaModel",
    "clip_text_model": "CLIPTextModel",
    "clip": "CLIPModel",
    "vision-text-dual-encoder": "VisionTextDualEncoderModel",
}
_VISION = (
    (hf_vision.vit_json, hf_vision.vit),
    (hf_vision.dinov2_json, hf_vision.dinov2),
    (hf_vision.clip_vision_json, hf_vision.clip_vision),
    (hf_vision.siglip_vision_json, hf_vision.siglip_vision),
)
# `AutoModel` knows no SigLIP text tower by itself.
_TEXT = ((hf_text.bert_json, hf_text.bert), (hf_text.clip_text_json, hf_text.clip_text))
# How sentence-transformers calls our pools.
POOLS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
Reader = Callable[[Mapping[str, Any], Collection[str]], Layout]


@dataclass(frozen=True)
class HubModel:
    """json: config.json. layout: as an import reads it. variables: of that layout. pooled: how our pooled features come
    out of the model: "pooler_output", or a pool of `last_hidden_state`, one of `POOLS`.
    """

    json: Mapping[str, Any]
    layout: Layout
    variables: Mapping[str, Any]
    pooled: str = "pooler_output"

    @property
    def kind(self) -> str:
        """The class of transformers."""
        return CLASSES[self.json["model_type"]]

    def state(self) -> dict[str, np.ndarray]:
        """`{key: array}` of model.safetensors."""
        return to_torch(self.variables, self.layout.rules)


def tower(
    config: Any, variables: Mapping[str, Any], spec: Mapping[str, Any], ids: Mapping[str, int], where: str
) -> HubModel:
    """The tower of a modality.

    spec: its preprocessing. ids: of the tokens "pad", "bos" and "eos", those that there are. where: the tower's place
    in the configuration.

    Raises:
      UserError: Hugging Face has no such architecture; it says which options are in the way.
    """
    if isinstance(config, TextTowerConfig):
        tries = [_try(config, variables, write(config, ids), read) for write, read in _TEXT]
    elif spec["kind"] == "image":
        config, variables = with_sizes(config, variables, spec["size"], spec["channels"])
        if isinstance(config, ResNetConfig):
            json = resnet.config_of(config, config.channels)
            tries = [_try(config, variables, json, resnet.layout)]
        else:
            tries = [_try(config, variables, write(config), read) for write, read in _VISION]
    else:
        raise UserError(
            f"{where}: Hugging Face has no encoder of {spec['kind']} such as {config.name!r}; use --format=torch"
        )
    model, differences = min(tries, key=lambda found: len(found[1]))
    if differences:
        raise UserError(
            f"{where}: Hugging Face has no such architecture; in the way of the nearest, {model.kind}, stand "
            f"{', '.join(differences)}; use --format=torch"
        )
    return model


def _try(ours: Any, variables: Mapping[str, Any], json: Mapping[str, Any], read: Reader) -> tuple[HubModel, list[str]]:
    """The model, and what in it would not be ours."""
    layout, pooled = read(json, _optional_keys(json)), "pooler_output"
    if layout.config.name in ("bert", "roberta") and ours.pooler in ("none", "kept") and ours.pool in POOLS:
        layout, pooled = _with(layout, pool=ours.pool, pooler="kept"), ours.pool
    elif json.get("vision_use_head") is False:
        pooled = "mean"
    variables, differences = written_as(ours, layout.config, variables)
    if json["model_type"] == "clip_text_model" and json.get("eos_token_id", 2) == 2:
        differences.append("an end token that is none or has the number 2, a mark of old files there")
    return HubModel({"architectures": [CLASSES[json["model_type"]]], **json}, layout, variables, pooled), differences


def _with(layout: Layout, **options: Any) -> Layout:
    return dataclasses.replace(layout, config=dataclasses.replace(layout.config, **options))


def _optional_keys(json: Mapping[str, Any]) -> set[str]:
    """What `AutoModel` expects of weights that other files of the architecture may lack."""
    kind, keys = json["model_type"], set()
    if kind in ("vit", "bert", "roberta"):
        keys.add("pooler.dense.weight")
    if kind == "dinov2_with_registers" or json.get("use_mask_token"):
        keys.add("embeddings.mask_token")
    if json.get("vision_use_head"):
        keys.add("head.probe")
    return keys


@dataclass(frozen=True)
class Projection:
    """Of an image-text pair: kernels [D, E] of its two heads and the logarithm of the logit scale."""

    image: np.ndarray
    text: np.ndarray
    log_scale: float


def pair(image: HubModel, text: HubModel, projection: Projection) -> HubModel:
    """Two towers and their linear projections, as `CLIPModel` where both towers are CLIP's.

    Raises:
      UserError: features that are not those of a tower's pooler, which alone the pair projects.
    """
    for name, model in (("image", image), ("text", text)):
        if model.pooled != "pooler_output" or model.kind == "ResNetModel":
            raise UserError(
                f"Hugging Face's pairs project pooler_output, and the {name} tower's features are not that of "
                f"{model.kind} (pool={model.layout.config.pool if model.pooled != 'pooler_output' else 'mean'!r}); "
                "use --format=open_clip or torch, or one tower with --modality"
            )
    both = (image.json["model_type"], text.json["model_type"]) == ("clip_vision_model", "clip_text_model")
    kind = "clip" if both else "vision-text-dual-encoder"
    json = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "projection_dim": projection.image.shape[1],
        "logit_scale_init_value": projection.log_scale,
        "vision_config": dict(image.json),
        "text_config": dict(text.json),
    }
    towers = {"image": lambda *_: image.layout, "text": lambda *_: text.layout}
    layout = hf_pair.clip(json, (), towers)
    params = {name: model.variables["params"] for name, model in (("image", image), ("text", text))}
    params |= {f"{name}_projection_0": {"kernel": getattr(projection, name)} for name in ("image", "text")}
    return HubModel(json, layout, {"params": params | {"logit_scale": np.float32(projection.log_scale)}})


def adapter(
    lora: Mapping[str, Any], config: LoraConfig, rules: Sequence[Rule], where: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """adapter_config.json and the weights of adapter_model.safetensors, as peft has them.

    Raises:
      UserError: an adapted layer that is no linear layer of its own there.
    """
    layers: dict[str, str] = {}

    def name(path: str) -> str:
        kernel = f"params/{path}/kernel"
        rule = next((r for r in rules if r.torch_key(kernel)), None)
        if rule is None or len(rule.paths) > 1:
            raise UserError(f"{where}.lora adapts {path}, which is no linear layer there; use --lora=merge")
        return layers.setdefault(path, rule.torch_key(kernel).removesuffix(".weight"))

    state = peft_state(lora, name)
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": "..",
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(layers.values()),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }, state
