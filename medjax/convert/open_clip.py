"""open_clip's pairs: open_clip_config.json and the shapes of the weights -> a layout.

Image towers are open_clip's own ViT or one of timm's, text towers its own transformer, or a BERT or RoBERTa as in
BiomedCLIP and UniMed-CLIP. Their folders have no configuration of the BERT beside them: its sizes are read off the
shapes, heads are of 64 channels, and a table of one segment is RoBERTa's. Where that is wrong, put the BERT's own
config.json into the folder, which takes precedence. Checked against open_clip 3.3.0.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.convert import hf_text, timm
from medjax.convert.files import read_json
from medjax.convert.forms import Patches, Rows, Same, Scalar
from medjax.convert.hf_pair import PairLayout, pair_layout
from medjax.convert.layout import Layout
from medjax.convert.rules import Rule, linear, norm
from medjax.convert.transformer import block_rules, depth_of
from medjax.errors import UserError
from medjax.models.pair import PairConfig
from medjax.models.text import ClipTextConfig, SiglipTextConfig
from medjax.models.vit import VitConfig

Shapes = Mapping[str, Sequence[int]]

CONFIG = "open_clip_config.json"
_NAMES = {
    "attention/qkv": ("attn.in_proj_weight", "attn.in_proj_bias"),
    "attention/out": "attn.out_proj",
    "mlp/up": "mlp.c_fc",
    "mlp/down": "mlp.c_proj",
    "norm_attention": "ln_1",
    "norm_mlp": "ln_2",
    "scale_attention": "ls_1.gamma",
    "scale_mlp": "ls_2.gamma",
}
_BLOCK = "transformer.resblocks."
# What the OpenAI files and old checkpoints hold besides weights.
_IGNORED = (r".*position_ids", r"(text\.)?attn_mask", r"input_resolution|context_length|vocab_size")
# What lies beside the weights of one of its own towers.
_BESIDE = (*_IGNORED, "proj|text_projection|logit_scale|logit_bias")
_TEXT_POOLS = {"argmax": "eos", "eos": "eos", "first": "cls", "last": "last"}
_HF_POOLS = {"mean_pooler": "mean", "cls_pooler": "cls", "cls_last_hidden_state_pooler": "cls"}


def find(directory: Path, state: dict[str, np.ndarray], part: str | None) -> tuple[Layout | PairLayout, dict]:
    """The layout of a folder, or of one `part` of the pair, and the state without what stands before its keys.

    Raises:
      UserError: an architecture or an option that we do not have.
    """
    config = read_json(directory / CONFIG).get("model_cfg")
    if not isinstance(config, Mapping):
        raise UserError(f"{directory / CONFIG} has no model_cfg; copy the file again")
    # What its training code saves from several devices.
    state = {key.removeprefix("module."): x for key, x in state.items()}
    beside = directory / "config.json"
    shapes = {key: x.shape for key, x in state.items()}
    image, image_prefix = _image(config, shapes)
    text, text_prefix = _text(config, shapes, read_json(beside) if beside.is_file() else {})
    if part is None:
        return with_projections(config, shapes, (image, text), (image_prefix, text_prefix)), state
    layout, prefix = {"image": (image, image_prefix), "text": (text, text_prefix)}[part]
    return layout, _under(state, prefix)


def _under(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What lies at a prefix; at none, all but the image tower."""
    if not prefix:
        return {key: x for key, x in state.items() if not key.startswith("visual.")}
    return {key.removeprefix(f"{prefix}."): x for key, x in state.items() if key.startswith(f"{prefix}.")}


def with_projections(
    config: Mapping[str, Any], shapes: Shapes, towers: Sequence[Layout], prefixes: Sequence[str]
) -> PairLayout:
    """The pair of two towers, whose keys have these prefixes.

    Raises:
      UserError: a bias of only one projection.
    """
    image, image_rules = _image_projection(shapes)
    text, text_rules = _text_projection(shapes)
    bias = "visual.head.proj.bias" in shapes
    if bias and text is not None:
        raise UserError("open_clip's timm_proj_bias beside a text projection without bias cannot be read")
    scalars = [name for name in ("logit_scale", "logit_bias") if name in shapes]
    more = [Rule(f"params/{name}", name, Scalar() if shapes[name] else Same()) for name in scalars]
    options = PairConfig(config["embed_dim"], image, text, bias, logit_bias="logit_bias" in shapes)
    layout = pair_layout(*towers, options, tuple(prefixes), (*image_rules, *text_rules, *more))
    return dataclasses.replace(layout, ignored=_IGNORED)


def _image_projection(shapes: Shapes) -> tuple[tuple[int, ...] | None, tuple[Rule, ...]]:
    ours = "params/image_projection_0"
    if "visual.proj" in shapes:
        return (), (Rule(f"{ours}/kernel", "visual.proj"),)
    if "visual.head.proj.weight" in shapes:
        return (), linear(ours, "visual.head.proj", "visual.head.proj.bias" in shapes)
    return None, ()


def _text_projection(shapes: Shapes) -> tuple[tuple[int, ...] | None, tuple[Rule, ...]]:
    ours = "params/text_projection"
    for key in ("text_projection", "text.text_projection"):
        if key in shapes:
            return (), (Rule(f"{ours}_0/kernel", key),)
    if "text.proj.weight" in shapes:
        return (), linear(f"{ours}_0", "text.proj", False)
    if "text.proj.0.weight" in shapes:
        hidden = (shapes["text.proj.0.weight"][0],)
        return hidden, (*linear(f"{ours}_0", "text.proj.0", False), *linear(f"{ours}_1", "text.proj.2", False))
    return None, ()


def _image(config: Mapping[str, Any], shapes: Shapes) -> tuple[Layout, str]:
    options = config.get("vision_cfg", {})
    if name := options.get("timm_model_name"):
        if options.get("timm_proj") == "mlp" or "visual.trunk.head.weight" in shapes:
            raise UserError(f"open_clip's timm_proj={options.get('timm_proj')!r} cannot be read; only 'linear', 'none'")
        size = options.get("image_size", 224)
        args = {"img_size": size} | ({"global_pool": pool} if (pool := options.get("timm_pool")) else {})
        return timm.layout({"architecture": name, "model_args": args}, _under(shapes, "visual.trunk")), "visual.trunk"
    return own_image(config, options, _under(shapes, "visual")), "visual"


def own_image(config: Mapping[str, Any], options: Mapping[str, Any], shapes: Shapes) -> Layout:
    """open_clip's own ViT, of its model_cfg and vision_cfg and the shapes of its weights.

    Raises:
      UserError: an option that we do not have.
    """
    pool = options.get("pool_type", "tok")
    if "class_embedding" not in shapes or options.get("attentional_pool") or pool not in ("tok", "avg"):
        raise UserError("open_clip's image tower cannot be read: only ViTs that pool their class token or the mean can")
    width, channels, patch, _ = shapes["conv1.weight"]
    rows = shapes["positional_embedding"][0] - 1
    size = options.get("image_size", 224)
    size = (size, size) if isinstance(size, int) else tuple(size)
    layout = VitConfig(
        **_common(config, options, shapes),
        patch=patch,
        channels=channels,
        grid=(size[0] // patch, size[1] // patch),
        antialias=True,
        heads=width // options.get("head_width", 64),
        pool="cls" if pool == "tok" else "mean",
        cls=True,
        cls_position=True,
        norm_before="ln_pre.weight" in shapes,
        norm="pooled" if options.get("final_ln_after_pool") else "tokens",
        patch_bias=False,
    )
    if rows != layout.grid[0] * layout.grid[1]:
        raise UserError(f"open_clip's image_size={size} and patches of {patch} do not give {rows} positions")
    rules = (
        Rule("params/patch_embed/kernel", "conv1.weight", Patches((patch, patch))),
        Rule("params/cls", "class_embedding", Same(2)),
        Rule(("params/cls_position", "params/positions"), "positional_embedding", Rows(0)),
        *(norm("params/norm_before", "ln_pre") if layout.norm_before else ()),
        *block_rules(layout, _NAMES, _BLOCK + "{i}"),
        *norm("params/norm", "ln_post"),
    )
    return Layout("vit", layout, rules, _BESIDE)


def _common(config: Mapping[str, Any], options: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """What open_clip's own two towers share."""
    hidden, width = shapes[f"{_BLOCK}0.mlp.c_fc.weight"]
    tanh = (options.get("act_kwargs") or {}).get("approximate") == "tanh"
    return dict(
        width=width,
        depth=depth_of(shapes, _BLOCK),
        hidden=hidden,
        activation="quick_gelu" if config.get("quick_gelu") else "gelu_tanh" if tanh else "gelu",
        epsilon=(options.get("norm_kwargs") or {}).get("eps", 1e-5),
        layer_scale=(options.get("ls_init_value") or 1e-5) if f"{_BLOCK}0.ls_1.gamma" in shapes else 0.0,
    )


def _text(config: Mapping[str, Any], shapes: Shapes, beside: Mapping[str, Any]) -> tuple[Layout, str]:
    options = config.get("text_cfg", {})
    if options.get("hf_model_name"):
        return _hf_text(options, _under(shapes, "text.transformer"), beside), "text.transformer"
    prefix = "text" if "text.token_embedding.weight" in shapes else ""
    return own_text(config, options, _under(shapes, prefix)), prefix


def own_text(config: Mapping[str, Any], options: Mapping[str, Any], shapes: Shapes) -> Layout:
    """open_clip's own text transformer, of its model_cfg and text_cfg and the shapes of its weights.

    Raises:
      UserError: an option that we do not have.
    """
    pool, causal = options.get("pool_type", "argmax"), not options.get("no_causal_mask")
    padded = not causal or pool == "last"
    if options.get("embed_cls") or pool not in _TEXT_POOLS or (padded and pool in ("argmax", "eos")):
        raise UserError(f"open_clip's text tower with pool_type={pool!r}, embed_cls or no_causal_mask cannot be read")
    # A projection with bias is SigLIP's, where it counts as part of the tower.
    head = "text_projection.weight" in shapes
    layout = (SiglipTextConfig if head else ClipTextConfig)(
        **_common(config, options, shapes),
        vocab_size=shapes["token_embedding.weight"][0],
        positions=shapes["positional_embedding"][0],
        heads=options.get("heads", 8),
        causal=causal,
        padded=padded,
        pool=_TEXT_POOLS[pool],
        pooler="linear" if head else "none",
        pooler_width=config["embed_dim"] if head else 0,
    )
    rules = (
        Rule("params/words/embedding", "token_embedding.weight"),
        Rule("params/positions", "positional_embedding"),
        *block_rules(layout, _NAMES, _BLOCK + "{i}"),
        *norm("params/last_norm", "ln_final"),
        *(linear("params/pooler", "text_projection") if head else ()),
    )
    return Layout(layout.name, layout, rules, _BESIDE)


def _hf_text(options: Mapping[str, Any], shapes: Shapes, beside: Mapping[str, Any]) -> Layout:
    words, types = (shapes.get(f"embeddings.{x}_embeddings.weight") for x in ("word", "token_type"))
    if words is None or types is None:
        raise UserError(
            f"open_clip's hf_model_name={options['hf_model_name']!r} is no BERT or RoBERTa; only they can be read"
        )
    read_off = {
        "model_type": "roberta" if types[0] == 1 else "bert",
        "vocab_size": words[0],
        "hidden_size": words[1],
        "num_hidden_layers": depth_of(shapes, "encoder.layer."),
        "num_attention_heads": max(words[1] // 64, 1),
        "intermediate_size": shapes["encoder.layer.0.intermediate.dense.weight"][0],
        "max_position_embeddings": shapes["embeddings.position_embeddings.weight"][0],
        "type_vocab_size": types[0],
    }
    layout = hf_text.bert(
        beside if beside.get("model_type") in ("bert", "roberta", "xlm-roberta") else read_off, shapes
    )
    # open_clip's default in CLIPTextCfg; null stands for that of the architecture.
    name = options.get("hf_pooler_type", "mean_pooler") or ("cls_pooler" if layout.tower == "bert" else "mean_pooler")
    if name not in _HF_POOLS:
        raise UserError(f"open_clip's hf_pooler_type={name!r} cannot be read; supported: {', '.join(_HF_POOLS)}")
    unused = layout.config.pooler != "none" and name != "cls_pooler"
    pooled = dataclasses.replace(layout.config, pool=_HF_POOLS[name], **({"pooler": "kept"} if unused else {}))
    return dataclasses.replace(layout, config=pooled)
