"""Encoders from folders of published weights, which were downloaded before: nothing is fetched here."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from medjax.convert import checkpoint, hugging_face, open_clip, timm
from medjax.convert.adapt import adapted
from medjax.convert.files import read_json, read_state
from medjax.convert.hf_pair import PairLayout
from medjax.convert.layout import Layout
from medjax.convert.rules import flatten, to_flax
from medjax.errors import UserError
from medjax.models import TOWERS
from medjax.models.pair import Pair
from medjax.models.partitioning import unbox

log = logging.getLogger("medjax")


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
    them), timm (ViT, ResNet), open_clip, or one file of weights in which an encoder has the names of torchvision's
    ResNets or timm's ViTs, as MGCA's and BioViL's have. part: one tower of a pair. image_size: in pixels, (height,
    width) or of a square; positions are resized to its grid. channels: 1 sums an RGB stem over its channels, so that a
    grey picture gives what its RGB copy gave.

    Returns:
      The module and its variables, float32. A tower's output is `Features`, with `.pooled` of the folder's own pooling
      configuration, else of the architecture's pooler; that of a pair is `PairFeatures`.

    Raises:
      UserError: no such folder, an architecture that is not known, or weights that do not fit: every missing,
        unexpected or misshapen one is named.
    """
    directory = Path(directory)
    _check_folder(directory)
    layout, state = find_layout(directory, read_state(directory), part)
    module, variables = _load(layout, state, directory)
    return adapted(module, variables, image_size, channels)


def find_layout(
    directory: Path, state: dict[str, np.ndarray], part: str | None = None
) -> tuple[Layout | PairLayout, dict[str, np.ndarray]]:
    """What a folder holds, and the part of its state that belongs to it, without prefixes."""
    if (directory / open_clip.CONFIG).is_file():
        return open_clip.find(directory, state, part)
    path = directory / "config.json"
    config = read_json(path) if path.is_file() else {}
    if part is not None and config.get("model_type") not in hugging_face.PAIR_LAYOUTS:
        raise UserError(f"{directory} holds one tower; leave part={part!r} out")
    if not path.is_file():
        return checkpoint.find(directory, state)
    if "architecture" in config and "model_type" not in config:
        return timm.find(config, state)
    return hugging_face.find(directory, config, state, part)


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
    return jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), **inputs)))


def _example(module: Any) -> dict[str, Any]:
    if isinstance(module, Pair):
        return {"image": _example(module.image)["value"], "text": _example(module.text)["tokens"]}
    c = module.config
    if hasattr(c, "vocab_size"):
        return {"tokens": jnp.zeros((1, 2), jnp.int32)}
    height, width = (side * c.patch for side in c.grid) if hasattr(c, "patch") else (64, 64)
    return {"value": jnp.zeros((1, height, width, c.channels))}


def _check_folder(directory: Path) -> None:
    if directory.is_dir():
        return
    name = str(directory)
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", name)
    fetch = f"{name} --local-dir {directory.name}" if known else "OWNER/NAME --local-dir FOLDER"
    raise UserError(
        f"no folder {name}; nothing is fetched at run time: on a machine with network run `hf download {fetch}`, copy "
        "the folder here, and give its path"
    )
