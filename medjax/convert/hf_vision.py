"""Hugging Face's vision transformers: config.json <-> `VitConfig`, and the tables of their weights."""

from collections.abc import Collection, Mapping
from typing import Any

from medjax.convert.forms import Patches, Rows, Same
from medjax.convert.layout import Layout
from medjax.convert.rules import Rule, linear, norm
from medjax.convert.transformer import attention_rules, block_rules, mlp_rules
from medjax.errors import UserError
from medjax.models.vit import VitConfig

# Hugging Face's name of an activation -> ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
} | {"relu": "relu"}
_BERT_ATTENTION = {f"attention/{x}": f"attention.attention.{x}" for x in ("query", "key", "value")} | {
    "attention/out": "attention.output.dense"
}
_VIT = _BERT_ATTENTION | {
    "mlp/up": "intermediate.dense",
    "mlp/down": "output.dense",
    "norm_attention": "layernorm_before",
    "norm_mlp": "layernorm_after",
}
_DINOV2 = _BERT_ATTENTION | {
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
    "norm_attention": "norm1",
    "norm_mlp": "norm2",
    "scale_attention": "layer_scale1.lambda1",
    "scale_mlp": "layer_scale2.lambda1",
}
_DINOV2_GATED = _DINOV2 | {
    "mlp/gate_up": ("mlp.weights_in.weight", "mlp.weights_in.bias"),
    "mlp/down": "mlp.weights_out",
}
CLIP = {f"attention/{x}": f"self_attn.{x[0]}_proj" for x in ("query", "key", "value")} | {
    "attention/out": "self_attn.out_proj",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
    "norm_attention": "layer_norm1",
    "norm_mlp": "layer_norm2",
}
_HEAD = {
    "attention/qkv": ("attention.in_proj_weight", "attention.in_proj_bias"),
    "attention/out": "attention.out_proj",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
}

# What a file of one tower may hold of the pair that it came from.
PAIR_IGNORED = (r".*position_ids", r"(visual|text)_projection\..*", r"logit_.*")
# What a config.json leaves out, which in a pair of towers is whatever does not differ from these.
_BASE = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
_PICTURE = dict(image_size=224, patch_size=16, num_channels=3, qkv_bias=True)
DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": _BASE | _PICTURE | dict(hidden_act="gelu", layer_norm_eps=1e-12),
    "dinov2": _BASE | _PICTURE | dict(hidden_act="gelu", layer_norm_eps=1e-6, mlp_ratio=4, layerscale_value=1.0),
    "clip_vision": _BASE | _PICTURE | dict(patch_size=32, hidden_act="quick_gelu", layer_norm_eps=1e-5),
    "siglip_vision": _BASE | _PICTURE | dict(hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6),
}


def _common(json: Mapping[str, Any]) -> dict[str, Any]:
    size, patch = json["image_size"], json["patch_size"]
    size = (size, size) if isinstance(size, int) else tuple(size)
    patch = patch if isinstance(patch, int) else patch[0]
    return dict(
        patch=patch,
        channels=json["num_channels"],
        grid=(size[0] // patch, size[1] // patch),
        width=json["hidden_size"],
        depth=json["num_hidden_layers"],
        heads=json["num_attention_heads"],
        activation=activation(json),
    )


def activation(json: Mapping[str, Any]) -> str:
    """Our name of the activation.

    Raises:
      UserError: one that we do not have.
    """
    if json["hidden_act"] not in ACTIVATIONS:
        raise UserError(f"hidden_act={json['hidden_act']!r} in config.json; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[json["hidden_act"]]


def _embedding(c: VitConfig, projection: str, positions: str, leading: int) -> tuple[Rule, ...]:
    patches = Rule("params/patch_embed/kernel", f"{projection}.weight", Patches((c.patch, c.patch)))
    bias = (Rule("params/patch_embed/bias", f"{projection}.bias"),) if c.patch_bias else ()
    tables = ("params/cls_position", "params/positions")
    table = Rule(tables, positions, Rows(leading)) if c.cls_position else Rule(tables[1], positions, Same(1 - leading))
    return (patches, *bias, table)


def _vit_rules(c: VitConfig, names: Mapping[str, Any]) -> tuple[Rule, ...]:
    extra = [Rule("params/cls", "embeddings.cls_token")]
    extra += [Rule("params/mask_token", "embeddings.mask_token")] if c.mask_token else []
    extra += [Rule("params/registers", "embeddings.register_tokens")] if c.registers else []
    extra += linear("params/pooler", "pooler.dense") if c.pooler else []
    return (
        *_embedding(c, "embeddings.patch_embeddings.projection", "embeddings.position_embeddings", 1),
        *extra,
        *block_rules(c, names, "encoder.layer.{i}"),
        *norm("params/norm", "layernorm"),
    )


def vit(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`ViTModel`, with its pooler if the file has one."""
    json = DEFAULTS["vit"] | dict(json)
    config = VitConfig(
        **_common(json),
        hidden=json["intermediate_size"],
        epsilon=json["layer_norm_eps"],
        qkv_bias=json["qkv_bias"],
        cls_position=True,
        pooler="pooler.dense.weight" in keys,
        mask_token="embeddings.mask_token" in keys,
    )
    return Layout("vit", config, _vit_rules(config, _VIT), (r"classifier\..*", r"decoder\..*"))


def dinov2(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`Dinov2Model` and `Dinov2WithRegistersModel`."""
    json = DEFAULTS["dinov2"] | dict(json)
    gated, width = json.get("use_swiglu_ffn", False), json["hidden_size"]
    hidden = int(width * json["mlp_ratio"])
    config = VitConfig(
        **_common(json),
        hidden=(int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden,
        swiglu=gated,
        epsilon=json["layer_norm_eps"],
        qkv_bias=json["qkv_bias"],
        layer_scale=json["layerscale_value"],
        cls_position=True,
        registers=json.get("num_register_tokens", 0),
        antialias="num_register_tokens" in json,
        mask_token="embeddings.mask_token" in keys,
    )
    return Layout("vit", config, _vit_rules(config, _DINOV2_GATED if gated else _DINOV2), (r"classifier\..*",))


def clip_vision(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`CLIPVisionModel`: the pooled class token alone passes the last norm."""
    json = DEFAULTS["clip_vision"] | dict(json)
    config = VitConfig(
        **_common(json),
        hidden=json["intermediate_size"],
        epsilon=json["layer_norm_eps"],
        patch_bias=False,
        cls_position=True,
        norm_before=True,
        norm="pooled",
    )
    rules = (
        *_embedding(config, "embeddings.patch_embedding", "embeddings.position_embedding.weight", 0),
        Rule("params/cls", "embeddings.class_embedding", Same(2)),
        *norm("params/norm_before", "pre_layrnorm"),
        *block_rules(config, CLIP, "encoder.layers.{i}"),
        *norm("params/norm", "post_layernorm"),
    )
    return Layout("vit", config, rules, PAIR_IGNORED)


def siglip_vision(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`SiglipVisionModel`: no class token, pooled by attention."""
    json = DEFAULTS["siglip_vision"] | dict(json)
    config = VitConfig(
        **_common(json),
        hidden=json["intermediate_size"],
        epsilon=json["layer_norm_eps"],
        pool="attention" if "head.probe" in keys else "mean",
    )
    head = (
        Rule("params/attention_pool/probe", "head.probe"),
        *(r.under("params/attention_pool", "head") for r in attention_rules(config, _HEAD)),
        *(r.under("params/attention_pool", "head") for r in mlp_rules(config, _HEAD)),
        *norm("params/attention_pool/norm", "head.layernorm"),
    )
    rules = (
        *_embedding(config, "embeddings.patch_embedding", "embeddings.position_embedding.weight", 0),
        *block_rules(config, CLIP, "encoder.layers.{i}"),
        *norm("params/norm", "post_layernorm"),
        *(head if config.pool == "attention" else ()),
    )
    return Layout("vit", config, rules, PAIR_IGNORED)


def _json(c: VitConfig, **more: Any) -> dict[str, Any]:
    """What all have in common; grid and channels must be set."""
    height, width = (side * c.patch for side in c.grid)
    return dict(
        image_size=height if height == width else [height, width],
        patch_size=c.patch,
        num_channels=c.channels,
        hidden_size=c.width,
        num_hidden_layers=c.depth,
        num_attention_heads=c.heads,
        intermediate_size=c.mlp_hidden,
        hidden_act=name_of_activation(c.activation),
        layer_norm_eps=c.epsilon,
        **more,
    )


def name_of_activation(name: str) -> str:
    """The inverse of `activation`."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == name)


def vit_json(c: VitConfig) -> dict[str, Any]:
    """The config.json of `ViTModel` that comes nearest; reading it back shows what differs."""
    return _json(c, model_type="vit", qkv_bias=c.qkv_bias)


def dinov2_json(c: VitConfig) -> dict[str, Any]:
    """Of `Dinov2Model`, or with registers of `Dinov2WithRegistersModel`."""
    if c.swiglu:
        ratios = (r for r in range(1, 33) if (int(int(c.width * r) * 2 / 3) + 7) // 8 * 8 == c.mlp_hidden)
    else:
        ratios = iter((c.mlp_hidden // c.width,))
    json = _json(c, model_type="dinov2_with_registers" if c.registers else "dinov2", qkv_bias=c.qkv_bias)
    json |= {"mlp_ratio": next(ratios, 4), "use_swiglu_ffn": c.swiglu, "layerscale_value": c.layer_scale or 1.0}
    return json | ({"num_register_tokens": c.registers} if c.registers else {"use_mask_token": c.mask_token})


def clip_vision_json(c: VitConfig) -> dict[str, Any]:
    """Of `CLIPVisionModel`."""
    return _json(c, model_type="clip_vision_model")


def siglip_vision_json(c: VitConfig) -> dict[str, Any]:
    """Of `SiglipVisionModel`, without its head unless features are pooled by attention."""
    return _json(c, model_type="siglip_vision_model", vision_use_head=c.pool == "attention")
