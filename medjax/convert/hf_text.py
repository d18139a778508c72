"""Hugging Face's text transformers: config.json -> `TextTowerConfig`, and the tables of their weights."""

from collections.abc import Collection, Mapping
from typing import Any

from medjax.convert.hf_vision import CLIP, PAIR_IGNORED, activation, name_of_activation
from medjax.convert.layout import Layout
from medjax.convert.rules import Rule, linear, norm
from medjax.convert.transformer import block_rules
from medjax.models.text import ClipTextConfig, RobertaConfig, SiglipTextConfig, TextTowerConfig

_BERT = {f"attention/{x}": f"attention.self.{x}" for x in ("query", "key", "value")} | {
    "attention/out": "attention.output.dense",
    "mlp/up": "intermediate.dense",
    "mlp/down": "output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "norm_mlp": "output.LayerNorm",
}
# Heads of masked language modelling and the like, and tables of consecutive numbers.
_BERT_IGNORED = (r"cls\..*", r"lm_head\..*", r"classifier\..*", r".*position_ids", r".*token_type_ids")

# What a config.json leaves out.
_BASE = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
_WORDS = dict(hidden_act="gelu", layer_norm_eps=1e-12, max_position_embeddings=512, type_vocab_size=2)
_CLIP = dict(vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8)
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": _BASE | _WORDS | dict(vocab_size=30522, pad_token_id=0),
    "roberta": _BASE | _WORDS | dict(vocab_size=50265, pad_token_id=1),
    "clip_text": _CLIP | dict(max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5),
    "siglip_text": _BASE
    | dict(vocab_size=32000, max_position_embeddings=64, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6),
}
_OFFSET = ("roberta", "xlm-roberta", "camembert")


def _common(json: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        vocab_size=json["vocab_size"],
        width=json["hidden_size"],
        depth=json["num_hidden_layers"],
        heads=json["num_attention_heads"],
        hidden=json["intermediate_size"],
        activation=activation(json),
        epsilon=json["layer_norm_eps"],
    )


def bert(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`BertModel`; without a pooler in the file the first token is the pooled feature."""
    offset = json["model_type"] in _OFFSET
    json = DEFAULTS["roberta" if offset else "bert"] | dict(json)
    offset = json["pad_token_id"] + 1 if offset else 0
    cls = RobertaConfig if offset else TextTowerConfig
    config = cls(
        **_common(json),
        positions=json["max_position_embeddings"] - offset,
        position_offset=offset,
        types=json["type_vocab_size"],
        pool="cls",
        pooler="tanh" if "pooler.dense.weight" in keys else "none",
    )
    rules = (
        Rule("params/words/embedding", "embeddings.word_embeddings.weight"),
        Rule("params/positions", "embeddings.position_embeddings.weight"),
        Rule("params/types", "embeddings.token_type_embeddings.weight"),
        *norm("params/norm", "embeddings.LayerNorm"),
        *block_rules(config, _BERT, "encoder.layer.{i}"),
        *(linear("params/pooler", "pooler.dense") if config.pooler != "none" else ()),
    )
    return Layout(config.name, config, rules, _BERT_IGNORED)


def _clip_like(config: TextTowerConfig, *more: Rule) -> Layout:
    rules = (
        Rule("params/words/embedding", "embeddings.token_embedding.weight"),
        Rule("params/positions", "embeddings.position_embedding.weight"),
        *block_rules(config, CLIP, "encoder.layers.{i}"),
        *norm("params/last_norm", "final_layer_norm"),
        *more,
    )
    return Layout(config.name, config, rules, PAIR_IGNORED)


def clip_text(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`CLIPTextModel`, pooled at the last real token, which is the end token."""
    json = DEFAULTS["clip_text"] | dict(json)
    return _clip_like(ClipTextConfig(**_common(json), positions=json["max_position_embeddings"]))


def siglip_text(json: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """`SiglipTextModel`, whose head is a linear layer."""
    json = DEFAULTS["siglip_text"] | dict(json)
    width = json.get("projection_size") or json["hidden_size"]
    config = SiglipTextConfig(**_common(json), positions=json["max_position_embeddings"], pooler_width=width)
    return _clip_like(config, *linear("params/pooler", "head"))


def _json(c: TextTowerConfig, ids: Mapping[str, int], **more: Any) -> dict[str, Any]:
    """What all have in common. ids: of "pad", "bos" and "eos"."""
    return dict(
        vocab_size=c.vocab_size,
        hidden_size=c.width,
        num_hidden_layers=c.depth,
        num_attention_heads=c.heads,
        intermediate_size=c.mlp_hidden,
        max_position_embeddings=c.positions + c.position_offset,
        hidden_act=name_of_activation(c.activation),
        layer_norm_eps=c.epsilon,
        **{f"{name}_token_id": i for name, i in ids.items()},
        **more,
    )


def bert_json(c: TextTowerConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    """The config.json of `BertModel`, or with an offset of positions of `RobertaModel`, that comes nearest; reading it
    back shows what differs."""
    return _json(
        c,
        ids,
        model_type="roberta" if c.position_offset else "bert",
        type_vocab_size=max(c.types, 1),
        hidden_dropout_prob=c.dropout,
        attention_probs_dropout_prob=0.0,
    )


def clip_text_json(c: TextTowerConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    """Of `CLIPTextModel`."""
    return _json(c, ids, model_type="clip_text_model")
