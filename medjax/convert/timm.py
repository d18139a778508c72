"""timm's vision transformers and ResNets: config.json and the shapes of the weights -> a layout.

The shapes tell most of an architecture. Its name tells the rest, as timm 1.0 defines it: heads, activation, epsilon.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.convert.forms import Patches, Rows
from medjax.convert.layout import Layout
from medjax.convert.resnet import TORCHVISION, options_of_shapes
from medjax.convert.rules import Rule, joined, linear, norm
from medjax.convert.transformer import block_rules, depth_of
from medjax.errors import UserError
from medjax.models.resnet import ResNetConfig
from medjax.models.vit import VitConfig

Shapes = Mapping[str, Sequence[int]]

_NAMES = {
    "attention/qkv": ("attn.qkv.weight", "attn.qkv.bias"),
    "attention/out": "attn.proj",
    "attention/query_norm": "attn.q_norm",
    "attention/key_norm": "attn.k_norm",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
    "norm_attention": "norm1",
    "norm_mlp": "norm2",
    "scale_attention": "ls1.gamma",
    "scale_mlp": "ls2.gamma",
}
_MARKS = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc2.weight")
_PACKED = {"mlp/gate_up": ("mlp.fc1.weight", "mlp.fc1.bias")}
_SPLIT = {"mlp/gate": "mlp.fc1_g", "mlp/up": "mlp.fc1_x"}
_POOLS = {"token": "cls", "avg": "mean", "map": "attention"}
_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "relu")
# Widths whose heads are not of 64 channels: L/16 of So400m, H, g, G and giant-opt.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16, 1536: 16}
_VIT = r"(test_)?vit_|deit|flexivit|eva_large_patch14"
# Of the same names of weights, and other arithmetic: rotary positions, norms after attention, RMS norms.
_OTHER = r"rope|_pe_|dinov3|rpn|distilled|_xp_|beit3|naflex"
_RESNET = r"(tv_|gluon_)?resnet\d+"
_TANH = r"patch32_siglip|large_patch16_siglip_(gap_)?512|so400m_patch16_siglip|giantopt"
# Arguments that change the arithmetic in ways which we do not have, or cannot read off a JSON file.
_FOREIGN = ("norm_layer", "mlp_layer", "block_fn", "attn_layer", "embed_layer", "pool_include_prefix")


def find(config: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> tuple[Layout, dict[str, np.ndarray]]:
    """The layout of a folder with this config.json, and its state.

    Raises:
      UserError: an architecture or an option that we do not have.
    """
    return layout(config, {key: x.shape for key, x in state.items()}), dict(state)


def layout(config: Mapping[str, Any], shapes: Shapes) -> Layout:
    """The layout of a timm model.

    config: its config.json, of which "architecture", "global_pool", "model_args" and "pretrained_cfg" are read. shapes:
    `{key: shape}` of its state.

    Raises:
      UserError: an architecture or an option that we do not have.
    """
    name = config.get("architecture", "")
    if re.fullmatch(_RESNET, name):
        return resnet(shapes)
    if not re.match(_VIT, name) or re.search(_OTHER, name):
        raise UserError(f"timm's architecture={name!r} cannot be read; supported: vit_*, deit_*, flexivit_*, resnetNN")
    args = config.get("model_args", {})
    if foreign := [x for x in _FOREIGN if args.get(x)]:
        raise UserError(f"timm's model_args {', '.join(foreign)} of {name} cannot be read; only the defaults can")
    return vit(config, shapes)


def resnet(shapes: Shapes) -> Layout:
    """A ResNet with torchvision's names, which timm keeps."""
    options = {k: v for k, v in options_of_shapes(shapes).items() if k != "name"}
    return Layout("resnet", ResNetConfig(**options), TORCHVISION, (r"fc\..*",))


def vit(config: Mapping[str, Any], shapes: Shapes) -> Layout:
    """A ViT, pooled as `forward_head(x, pre_logits=True)` pools; without config what its shapes tell."""
    if missing := [key for key in _MARKS if key not in shapes]:
        raise UserError(f"weights of a timm ViT without {', '.join(missing)} cannot be read; supported: plain ViTs")
    stem = shapes["patch_embed.proj.weight"]
    gated, hidden = _mlp(shapes)
    cls = "cls_token" in shapes
    grid, cls_position = _positions(config, shapes, stem[-1], cls)
    args, name = config.get("model_args", {}), config.get("architecture", "")
    options = VitConfig(
        patch=stem[-1],
        channels=stem[1],
        grid=grid,
        antialias=True,
        width=stem[0],
        depth=depth_of(shapes, "blocks."),
        heads=args.get("num_heads") or _heads(name, stem[0], bool(gated)),
        hidden=hidden,
        swiglu=bool(gated),
        activation=_activation(name, args),
        epsilon=1e-5 if "norm_pre.weight" in shapes else 1e-6,
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
        qk_norm="blocks.0.attn.q_norm.weight" in shapes,
        layer_scale=(args.get("init_values") or 1e-5) if "blocks.0.ls1.gamma" in shapes else 0.0,
        pool=_pool(config, shapes, cls),
        cls=cls,
        cls_position=cls_position,
        registers=shapes["reg_token"][1] if "reg_token" in shapes else 0,
        norm_before="norm_pre.weight" in shapes,
        norm="pooled" if "fc_norm.weight" in shapes else "tokens",
        patch_bias="patch_embed.proj.bias" in shapes,
    )
    if options.pool == "attention" and options.prefix:
        raise UserError(f"timm's {name} pools its patches by attention, without its other tokens, which cannot be read")
    return Layout("vit", options, tuple(_rules(options, _NAMES | gated)), (r"head\..*",))


def _mlp(shapes: Shapes) -> tuple[dict[str, Any], int]:
    """Names of a gated MLP's layers, and the hidden width."""
    hidden = shapes["blocks.0.mlp.fc2.weight"][1]
    if "blocks.0.mlp.fc1_g.weight" in shapes:
        return _SPLIT, hidden
    packed = shapes.get("blocks.0.mlp.fc1.weight", (0,))[0] == 2 * hidden
    return _PACKED if packed else {}, hidden


def _heads(name: str, width: int, gated: bool) -> int:
    if name == "vit_base_patch16_gap_224":
        return 16
    return width // 64 if gated or width not in _HEADS else _HEADS[width]


def _activation(name: str, args: Mapping[str, Any]) -> str:
    default = "quick_gelu" if "quickgelu" in name else "gelu_tanh" if re.search(_TANH, name) else "gelu"
    found = args.get("act_layer") or default
    if found not in _ACTIVATIONS:
        raise UserError(f"timm's act_layer={found!r} cannot be read; supported: {', '.join(_ACTIVATIONS)}")
    return found


def _pool(config: Mapping[str, Any], shapes: Shapes, cls: bool) -> str:
    if "attn_pool.latent" in shapes:
        return "attention"
    default = "token" if cls and "fc_norm.weight" not in shapes else "avg"
    pool = config.get("model_args", {}).get("global_pool") or config.get("global_pool") or default
    if pool not in _POOLS:
        raise UserError(f"timm's global_pool={pool!r} cannot be read; supported: {', '.join(_POOLS)}")
    return _POOLS[pool]


def _positions(config: Mapping[str, Any], shapes: Shapes, patch: int, cls: bool) -> tuple[tuple[int, int], bool]:
    """The grid of the table, and whether its first row is the class token's."""
    rows = shapes["pos_embed"][1]
    size = config.get("model_args", {}).get("img_size") or config.get("pretrained_cfg", {}).get("input_size", (0, 0))
    height, width = (size, size) if isinstance(size, int) else size[-2:]
    for own in (False, True) if cls else (False,):
        side = math.isqrt(max(rows - own, 0))
        for grid in ((height // patch, width // patch), (side, side)):
            if grid[0] * grid[1] == rows - own > 0:
                return grid, own
    raise UserError(f"timm's pos_embed of {rows} rows fits no grid of patches with {int(cls)} class token")


def _rules(c: VitConfig, names: Mapping[str, Any]):
    yield Rule("params/patch_embed/kernel", "patch_embed.proj.weight", Patches((c.patch, c.patch)))
    if c.patch_bias:
        yield Rule("params/patch_embed/bias", "patch_embed.proj.bias")
    tables = ("params/cls_position", "params/positions")
    yield Rule(tables, "pos_embed", Rows()) if c.cls_position else Rule(tables[1], "pos_embed")
    if c.has_cls:
        yield Rule("params/cls", "cls_token")
    if c.registers:
        yield Rule("params/registers", "reg_token")
    if c.norm_before:
        yield from norm("params/norm_before", "norm_pre")
    yield from block_rules(c, names, "blocks.{i}")
    yield from norm("params/norm", "fc_norm" if c.norm == "pooled" else "norm")
    if c.pool == "attention":
        yield from _attention_pool()


def _attention_pool():
    ours, attention = "params/attention_pool", "params/attention_pool/attention"
    yield Rule(f"{ours}/probe", "attn_pool.latent")
    yield from linear(f"{attention}/query", "attn_pool.q")
    yield from joined([f"{attention}/key", f"{attention}/value"], "attn_pool.kv.weight", "attn_pool.kv.bias")
    yield from linear(f"{attention}/out", "attn_pool.proj")
    yield from norm(f"{ours}/norm", "attn_pool.norm")
    yield from linear(f"{ours}/mlp/up", "attn_pool.mlp.fc1")
    yield from linear(f"{ours}/mlp/down", "attn_pool.mlp.fc2")
