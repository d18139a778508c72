"""Image-text pairs as open_clip has them: open_clip_config.json and the weights, by the tables of the import.

The image tower becomes open_clip's own ViT, the text tower its own transformer or Hugging Face's BERT, of which the
folder holds the config.json.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from medjax.convert import hf_text, open_clip
from medjax.convert.equivalent import with_sizes, written_as
from medjax.convert.hf_pair import PairLayout
from medjax.convert.hub import Projection
from medjax.convert.layout import Layout
from medjax.convert.rules import flatten, to_torch, unflatten
from medjax.errors import UserError
from medjax.models.text import TextTowerConfig
from medjax.models.vit import VitConfig

_POOLS = {"eos": "eos", "cls": "first", "last": "last"}
_RESIZES = {"pad": "longest", "crop": "shortest", "stretch": "squash"}


@dataclasses.dataclass(frozen=True)
class OpenClipModel:
    """json: open_clip_config.json. text_json: config.json of a BERT, else None. variables: of the layout."""

    json: Mapping[str, Any]
    text_json: Mapping[str, Any] | None
    layout: PairLayout
    variables: Mapping[str, Any]

    def state(self) -> dict[str, np.ndarray]:
        """`{key: array}` of open_clip_model.safetensors."""
        return to_torch(self.variables, self.layout.rules)


def pair(
    towers: Mapping[str, tuple[Any, Mapping[str, Any]]],
    specs: Mapping[str, Mapping[str, Any]],
    ids: Mapping[str, int],
    projection: Projection,
) -> OpenClipModel:
    """towers: configuration and variables of "image" and "text". specs: their preprocessing. ids: of the tokens "pad",
    "bos" and "eos", those that there are.

    Raises:
      UserError: open_clip has no such architecture; it says which options are in the way.
    """
    config, variables = towers["image"]
    if not isinstance(config, VitConfig):
        raise UserError(f"open_clip has no image tower such as {config.name!r}, only ViTs; use --format=torch")
    config, variables = with_sizes(config, variables, specs["image"]["size"], specs["image"]["channels"])
    config, variables = _of_colours(config, variables)
    quick = {"quick_gelu": True} if config.activation == "quick_gelu" else {}
    vision, shapes = _vision(config)
    image = open_clip.own_image(quick, vision, shapes)
    params = {"image": _written("image", config, image, variables)}
    text_config, variables = _cut(*towers["text"], specs["text"]["length"])
    make = _own_text if text_config.norm_first else _bert
    text, options, text_json = make(text_config, quick, ids)
    params["text"] = _written("text", text_config, text, variables)
    params |= {f"{name}_projection_0": {"kernel": getattr(projection, name)} for name in ("image", "text")}
    params["logit_scale"] = np.float32(projection.log_scale)
    embed_dim = projection.image.shape[1]
    model = {"embed_dim": embed_dim, **quick, "vision_cfg": vision, "text_cfg": options}
    shapes = {"visual.proj": (), "text.proj.weight" if text_json else "text_projection": (), "logit_scale": ()}
    prefixes = ("visual", "text.transformer" if text_json else "")
    layout = open_clip.with_projections(model, shapes, (image, text), prefixes)
    json = {"model_cfg": model, "preprocess_cfg": _preprocessing(specs["image"])}
    return OpenClipModel(json, text_json, layout, {"params": params})


def _written(name: str, ours: Any, theirs: Layout, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    variables, differences = written_as(ours, theirs.config, variables)
    if differences:
        raise UserError(
            f"open_clip has no such {name} tower; in the way stand {', '.join(differences)}; use --format=torch"
        )
    return variables["params"]


def _of_colours(config: VitConfig, variables: Mapping[str, Any]) -> tuple[VitConfig, Mapping[str, Any]]:
    """open_clip's ViTs see three channels: the stem of a grey one takes their mean."""
    if config.channels != 1:
        return config, variables
    leaves = flatten(variables)
    kernel = np.asarray(leaves["params/patch_embed/kernel"])
    leaves["params/patch_embed/kernel"] = np.repeat(kernel / 3, 3, axis=0)
    return dataclasses.replace(config, channels=3), unflatten(leaves)


def _cut(config: TextTowerConfig, variables: Mapping[str, Any], length: int):
    """open_clip pads texts to the whole table of positions, of which no text had more than `length`."""
    leaves, rows = flatten(variables), length + config.position_offset
    leaves["params/positions"] = np.asarray(leaves["params/positions"])[:rows]
    return dataclasses.replace(config, positions=min(length, config.positions)), unflatten(leaves)


def _common(c: Any) -> dict[str, Any]:
    return {
        "width": c.width,
        "layers": c.depth,
        "mlp_ratio": c.mlp_hidden / c.width,
        "ls_init_value": c.layer_scale or None,
        "norm_kwargs": {"eps": c.epsilon},
        **({"act_kwargs": {"approximate": "tanh"}} if c.activation == "gelu_tanh" else {}),
    }


def _shapes(c: Any) -> dict[str, tuple[int, ...]]:
    """Of the weights that the import reads sizes off."""
    block = "transformer.resblocks."
    shapes = {f"{block}{i}.mlp.c_fc.weight": (c.mlp_hidden, c.width) for i in range(c.depth)}
    return shapes | ({f"{block}0.ls_1.gamma": (c.width,)} if c.layer_scale else {})


def _vision(c: VitConfig) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """vision_cfg, and shapes."""
    options = _common(c) | {
        "image_size": c.grid[0] * c.patch,
        "patch_size": c.patch,
        "head_width": c.width // c.heads,
        "no_ln_pre": not c.norm_before,
        "final_ln_after_pool": c.norm == "pooled",
        "pool_type": "avg" if c.pool == "mean" else "tok",
    }
    shapes = _shapes(c) | {
        "class_embedding": (c.width,),
        "conv1.weight": (c.width, c.channels, c.patch, c.patch),
        "positional_embedding": (c.grid[0] * c.grid[1] + 1, c.width),
    }
    return options, shapes | ({"ln_pre.weight": (c.width,)} if c.norm_before else {})


def _own_text(c: TextTowerConfig, model: Mapping[str, Any], ids: Mapping[str, int]):
    """Layout, text_cfg, and no config.json."""
    if c.pool not in _POOLS or (c.pool == "eos" and "eos" not in ids):
        raise UserError(f"open_clip has no such text tower; in the way stands pool={c.pool!r}; use --format=torch")
    options = _common(c) | {
        "context_length": c.positions,
        "vocab_size": c.vocab_size,
        "heads": c.heads,
        "no_causal_mask": not c.causal,
        "pool_type": _POOLS[c.pool],
        "pad_id": ids["pad"],
        "eos_id": ids.get("eos", 0),
        "hf_tokenizer_name": ".",
    }
    tables = {"token_embedding.weight": (c.vocab_size, c.width), "positional_embedding": (c.positions, c.width)}
    return open_clip.own_text(model, options, _shapes(c) | tables), options, None


def _bert(c: TextTowerConfig, model: Mapping[str, Any], ids: Mapping[str, int]):
    """Layout, text_cfg and config.json."""
    json, tanh = hf_text.bert_json(c, ids), c.pooler == "tanh"
    layout = hf_text.bert(json, {"pooler.dense.weight"} if tanh else ())
    if c.pool == "mean" and not tanh:
        layout = dataclasses.replace(layout, config=dataclasses.replace(layout.config, pool="mean"))
    pools = {"mean": "mean_pooler", "cls": "cls_pooler" if tanh else "cls_last_hidden_state_pooler"}
    options = {
        "context_length": c.positions,
        "hf_model_name": ".",
        "hf_tokenizer_name": ".",
        "hf_model_pretrained": False,
        "hf_proj_type": "linear",
        "hf_pooler_type": pools.get(c.pool),
    }
    return layout, options, json


def _preprocessing(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "mean": [spec["mean"]] * 3,
        "std": [spec["std"]] * 3,
        "interpolation": "bilinear",
        "resize_mode": _RESIZES[spec["fit"]],
        "fill_color": 0,
    }


def loading(spec: Mapping[str, Any]) -> str:
    """The section of the model card. spec: preprocessing of the image."""
    grey = ' Training saw grey pictures: open them with `.convert("L")`.' if spec["channels"] == 1 else ""
    return f"""From inside this folder, which the BERT's configuration is looked for in, with
`pip install torch torchvision open_clip_torch`:

```python
import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:.")
tokenizer = open_clip.get_tokenizer("local-dir:.")
image = model.encode_image(preprocess(picture)[None], normalize=True)
text = model.encode_text(tokenizer(["No effusion."]), normalize=True)
```
{grey}"""
