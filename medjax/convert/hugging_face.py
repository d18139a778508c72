"""Folders of Hugging Face: model_type in config.json -> a layout."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medjax.convert import hf_pair, hf_text, hf_vision, resnet
from medjax.convert.hf_pair import PairLayout
from medjax.convert.layout import Layout
from medjax.convert.pooling import pooled_as_published
from medjax.errors import UserError

# model_type in config.json -> (the layout of (config, keys), what the keys of a larger model have before them).
TOWER_LAYOUTS: dict[str, tuple[Callable[[Mapping[str, Any], Collection[str]], Layout], str]] = {
    "vit": (hf_vision.vit, "vit."),
    "dinov2": (hf_vision.dinov2, "dinov2."),
    "dinov2_with_registers": (hf_vision.dinov2, "dinov2_with_registers."),
    "clip_vision_model": (hf_vision.clip_vision, "vision_model."),
    "siglip_vision_model": (hf_vision.siglip_vision, "vision_model."),
    "bert": (hf_text.bert, "bert."),
    "roberta": (hf_text.bert, "roberta."),
    "xlm-roberta": (hf_text.bert, "roberta."),
    "clip_text_model": (hf_text.clip_text, "text_model."),
    "siglip_text_model": (hf_text.siglip_text, "text_model."),
    "resnet": (resnet.layout, "resnet."),
}
# model_type of a pair -> (its layout, the model_types of its towers where config.json does not say).
PAIR_LAYOUTS: dict[str, tuple[Callable[..., PairLayout], str, str]] = {
    "clip": (hf_pair.clip, "clip_vision_model", "clip_text_model"),
    "siglip": (hf_pair.siglip, "siglip_vision_model", "siglip_text_model"),
    "vision-text-dual-encoder": (hf_pair.clip, "", ""),
}


def find(
    directory: Path, config: Mapping[str, Any], state: dict[str, np.ndarray], part: str | None = None
) -> tuple[Layout | PairLayout, dict[str, np.ndarray]]:
    """What a folder with this config.json holds, or one `part` of a pair, and its state without prefixes.

    Raises:
      UserError: a model_type that we do not have.
    """
    state, kind = _renamed(state), config.get("model_type")
    if kind in PAIR_LAYOUTS:
        return _pair(config, state, part)
    if kind not in TOWER_LAYOUTS:
        valid = ", ".join(sorted((*TOWER_LAYOUTS, *PAIR_LAYOUTS)))
        raise UserError(f"{directory / 'config.json'} has model_type={kind!r}; supported: {valid}")
    make, prefix = TOWER_LAYOUTS[kind]
    state = {key.removeprefix(prefix): x for key, x in state.items()}
    return pooled_as_published(make(config, state.keys()), directory), state


def _pair(config: Mapping[str, Any], state: dict[str, np.ndarray], part: str | None):
    make, *defaults = PAIR_LAYOUTS[config["model_type"]]
    kinds = [
        config.get(f"{name}_config", {}).get("model_type", default)
        for name, default in zip(("vision", "text"), defaults, strict=True)
    ]
    # A pair's own configuration calls both of its towers by its own name, in old files.
    kinds = [default if kind == config["model_type"] else kind for kind, default in zip(kinds, defaults, strict=True)]
    if unknown := [kind for kind in kinds if kind not in TOWER_LAYOUTS]:
        raise UserError(f"a pair with towers {', '.join(unknown)}; supported: {', '.join(sorted(TOWER_LAYOUTS))}")
    towers = dict(zip(("image", "text"), (TOWER_LAYOUTS[kind][0] for kind in kinds), strict=True))
    if part is None:
        return make(config, state.keys(), towers), state
    name = {"image": "vision", "text": "text"}[part]
    own = {k.removeprefix(f"{name}_model."): x for k, x in state.items() if k.startswith(f"{name}_model.")}
    return towers[part](config.get(f"{name}_config", {}), own.keys()), own


def _renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Norms of files from TensorFlow's days have a gamma and a beta."""
    pairs = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
    out = {}
    for key, x in state.items():
        for old, new in pairs:
            key = key.replace(old, new)
        out[key] = x
    return out
