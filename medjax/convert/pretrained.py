"""Encoders from folders of published weights, which were downloaded before: nothing is fetched here."""

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from medjax.convert import hf_pair, hf_text, hf_vision, resnet
from medjax.convert.files import read_json, read_state
from medjax.convert.hf_pair import PairLayout
from medjax.convert.layout import Layout
from medjax.convert.pooling import pooled_as_published
from medjax.convert.rules import flatten, to_flax, unflatten
from medjax.errors import UserError
from medjax.models import TOWERS
from medjax.models.pair import Pair
from medjax.models.partitioning import unbox
from medjax.models.positions import resize_positions

log = logging.getLogger("medjax")

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


def load_pretrained(
    directory: str | Path,
    *,
    part: Literal["image", "text"] | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: Literal[1, 3] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The model and the weights in a folder, as its authors published them.

        model, params = load_pretrained("dinov2-base")
        features = model.apply(params, pictures)          # pictures float32[b, H, W, C]
        features.pooled, features.tokens                  # [b, D], [b, L, D]
        model, params = load_pretrained("bert-base-uncased")
        features = model.apply(params, tokens, lengths=lengths)   # int32[b, L] padded on the right, int32[b]

    directory: of Hugging Face (ViT, DINOv2, CLIP, SigLIP, BERT, RoBERTa, ResNet, sentence-transformers, and pairs of
    them), timm, open_clip, or a checkpoint of a ResNet with torchvision's names. part: one tower of a pair. image_size:
    in pixels, (height, width) or of a square; positions are resized to its grid. channels: 1 sums an RGB stem over its
    channels, so that a grey picture gives what its RGB copy gave.

    Returns:
      The module and its variables, float32. A tower's output is `Features`, with `.pooled` of the folder's own pooling
      configuration, else of the architecture's pooler; that of a pair is `PairFeatures`.

    Raises:
      UserError: no such folder, an architecture that is not known, or weights that do not fit: every missing,
        unexpected or misshapen one is named.
    """
    directory = Path(directory)
    _check_folder(directory)
    state = _renamed(read_state(directory))
    layout, state = find_layout(directory, state, part)
    module, variables = _load(layout, state, directory)
    return adapted(module, variables, image_size, channels)


def find_layout(
    directory: Path, state: dict[str, np.ndarray], part: str | None = None
) -> tuple[Layout | PairLayout, dict[str, np.ndarray]]:
    """What a folder holds, and the part of its state that belongs to it, without prefixes."""
    config = read_json(directory / "config.json")
    kind = config.get("model_type")
    if kind in PAIR_LAYOUTS:
        return _pair(config, state, part)
    if kind not in TOWER_LAYOUTS:
        valid = ", ".join(sorted((*TOWER_LAYOUTS, *PAIR_LAYOUTS)))
        raise UserError(f"{directory / 'config.json'} has model_type={kind!r}; supported: {valid}")
    if part is not None:
        raise UserError(f"{directory} holds one tower ({kind}); leave part={part!r} out")
    make, prefix = TOWER_LAYOUTS[kind]
    state = _without_prefix(state, prefix)
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


def _load(layout: Layout | PairLayout, state: Mapping[str, np.ndarray], directory: Path) -> tuple[Any, dict[str, Any]]:
    module = make_module(layout)
    shapes = {path: leaf.shape for path, leaf in flatten(abstract_variables(module)).items()}
    ignored = [key for key in state if any(re.fullmatch(pattern, key) for pattern in layout.ignored)]
    if ignored:
        log.info("%s: not part of the encoder and left out: %s", directory, ", ".join(ignored))
    kept = {key: x for key, x in state.items() if key not in ignored}
    return module, to_flax(kept, layout.rules, shapes, f"architecture that {directory} describes")


def make_module(layout: Layout | PairLayout) -> Any:
    """The Linen module of a layout."""
    if isinstance(layout, PairLayout):
        return Pair(layout.config, make_module(layout.image), make_module(layout.text))
    return TOWERS[layout.tower][1](layout.config)


def abstract_variables(module: Any) -> dict[str, Any]:
    """Shapes and dtypes of all variables of a tower or pair, as `init` would make them."""
    inputs = _example(module)
    return unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), **inputs)))


def _example(module: Any) -> dict[str, Any]:
    if isinstance(module, Pair):
        return {"image": _example(module.image)["value"], "text": _example(module.text)["tokens"]}
    c = module.config
    if hasattr(c, "vocab_size"):
        return {"tokens": jnp.zeros((1, 2), jnp.int32)}
    height, width = (side * c.patch for side in c.grid) if hasattr(c, "patch") else (64, 64)
    return {"value": jnp.zeros((1, height, width, c.channels))}


def adapted(module: Any, variables: dict[str, Any], image_size, channels) -> tuple[Any, dict[str, Any]]:
    """Positions for pictures of another size, and a stem for other channels; see `load_pretrained`."""
    if isinstance(module, Pair):
        image, image_variables = adapted(
            module.image, {k: v["image"] for k, v in variables.items() if "image" in v}, image_size, channels
        )
        variables = {k: v | ({"image": image_variables[k]} if "image" in v else {}) for k, v in variables.items()}
        return module.clone(image=image), variables
    config = module.config
    if (image_size is not None or channels is not None) and not hasattr(config, "channels"):
        raise UserError("image_size and channels are for encoders of pictures; leave them out")
    leaves = flatten(variables)
    if image_size is not None and hasattr(config, "grid"):
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if any(side % config.patch for side in size):
            raise UserError(f"image_size={image_size} does not divide into patches of {config.patch}")
        grid = tuple(side // config.patch for side in size)
        old = leaves["params/positions"][0]
        leaves["params/positions"] = resize_positions(jnp.asarray(old), config.grid, grid, config.antialias)[None]
        config = dataclasses.replace(config, grid=grid)
    if channels is not None and channels != config.channels:
        stem = "params/patch_embed/kernel" if hasattr(config, "patch") else "params/stem/conv/kernel"
        leaves[stem] = _summed(leaves[stem], config.channels, channels, hasattr(config, "patch"))
        config = dataclasses.replace(config, channels=channels)
    return module.clone(config=config), unflatten({path: jnp.asarray(x) for path, x in leaves.items()})


def _summed(kernel: np.ndarray, old: int, new: int, flat: bool) -> np.ndarray:
    if new != 1:
        raise UserError(f"a stem of {old} channels can be adapted to 1 channel, not to {new}")
    x = kernel.reshape(-1, old, kernel.shape[-1]).sum(axis=1)
    return x if flat else x.reshape(*kernel.shape[:2], 1, kernel.shape[-1])


def _without_prefix(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): x for key, x in state.items()}


def _renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Norms of files from TensorFlow's days have a gamma and a beta."""
    pairs = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
    out = {}
    for key, x in state.items():
        for old, new in pairs:
            key = key.replace(old, new)
        out[key] = x
    return out


def _check_folder(directory: Path) -> None:
    if directory.is_dir():
        return
    name = str(directory)
    fetch = f"hf download {name} --local-dir {directory.name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else (
        "hf download OWNER/NAME --local-dir FOLDER"
    )
    raise UserError(
        f"no folder {name}; nothing is fetched at run time: on a machine with network run `{fetch}`, copy the folder here, "
        "and give its path"
    )
