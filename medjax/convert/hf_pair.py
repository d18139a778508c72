"""Hugging Face's pairs of an image and a text tower: CLIP, SigLIP, and any two towers with projections."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from medjax.convert.forms import Scalar
from medjax.convert.layout import Layout
from medjax.convert.rules import Rule, linear
from medjax.models.pair import PairConfig


@dataclass(frozen=True)
class PairLayout:
    """image, text: of the towers. config: of the pair. rules: of all of it."""

    image: Layout
    text: Layout
    config: PairConfig
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...]


def pair_layout(
    image: Layout, text: Layout, config: PairConfig, prefixes: tuple[str, str], more: tuple[Rule, ...]
) -> PairLayout:
    """Two towers whose keys have these prefixes, and the rules of what lies beside them."""
    rules = []
    for name, layout, prefix in zip(("image", "text"), (image, text), prefixes, strict=True):
        for rule in layout.rules:
            paths = tuple(_within(path, name) for path in rule.paths)
            key = f"{prefix}.{rule.torch}" if prefix else rule.torch
            rules.append(Rule(paths if len(paths) > 1 else paths[0], key, rule.form))
    return PairLayout(image, text, config, (*rules, *more), (r".*position_ids",))


def _within(path: str, tower: str) -> str:
    """ "params/x" -> "params/image/x"."""
    collection, rest = path.split("/", 1)
    return f"{collection}/{tower}/{rest}"


def _under(keys: Collection[str], prefix: str) -> set[str]:
    return {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}


def clip(json: Mapping[str, Any], keys: Collection[str], towers: Mapping[str, Any]) -> PairLayout:
    """`CLIPModel` and `VisionTextDualEncoderModel`: linear projections without bias.

    towers: `{"image": ..., "text": ...}`, functions of (config, keys) that give the layouts of the towers.
    """
    prefixes = ("vision_model", "text_model")
    image = towers["image"](json.get("vision_config", {}), _under(keys, "vision_model."))
    text = towers["text"](json.get("text_config", {}), _under(keys, "text_model."))
    more = (
        *linear("params/image_projection_0", "visual_projection", False),
        *linear("params/text_projection_0", "text_projection", False),
        Rule("params/logit_scale", "logit_scale"),
    )
    return pair_layout(image, text, PairConfig(json.get("projection_dim", 512)), prefixes, more)


def siglip(json: Mapping[str, Any], keys: Collection[str], towers: Mapping[str, Any]) -> PairLayout:
    """`SiglipModel`: the pooled features are the embeddings; scale and bias."""
    image = towers["image"](json.get("vision_config", {}), _under(keys, "vision_model."))
    text = towers["text"](json.get("text_config", {}), _under(keys, "text_model."))
    config = PairConfig(text.config.pooler_width or text.config.width, None, None, logit_bias=True)
    more = tuple(Rule(f"params/{name}", name, Scalar()) for name in ("logit_scale", "logit_bias"))
    return pair_layout(image, text, config, ("vision_model", "text_model"), more)
