"""The weights of medjax's own encoders: Flax tree <-> the modules of `medjax.torch.modeling`."""

from collections.abc import Mapping

from medjax.convert.rules import Rule, linear, norm

_BLOCK = "blocks/block_{i}", "blocks.{i}"
_BLOCKS = tuple(
    rule.under(*_BLOCK)
    for rule in (
        *(r for name in ("query", "key", "value", "out") for r in linear(f"attention/{name}", f"attention.{name}")),
        *(r for name in ("up", "down") for r in linear(f"mlp/{name}", f"mlp.{name}")),
        *norm("norm_attention", "norm_attention"),
        *norm("norm_mlp", "norm_mlp"),
    )
)
_VIT = (
    *linear("patch_embed", "patch_embed"),
    Rule("positions", "positions"),
    Rule("cls", "cls"),
    *_BLOCKS,
    *norm("norm", "norm"),
)
_BERT = (
    Rule("words/embedding", "words.weight"),
    Rule("positions", "positions.weight"),
    *_BLOCKS,
    *norm("norm", "norm"),
)
_MLP = linear("layer_{i}", "layers.{i}")
_HEAD = (*linear("hidden", "hidden"), *linear("out", "out"))

# Encoder name, as in `medjax.models.TOWERS` -> its rules.
TOWERS: dict[str, tuple[Rule, ...]] = {"vit": _VIT, "ecg_vit": _VIT, "bert": _BERT, "mlp": _MLP}


def encoder_rules(towers: Mapping[str, str]) -> tuple[Rule, ...]:
    """The rules of a whole encoder: towers, heads, logit scales and biases.

    towers: `{modality: encoder name}`.
    """
    rules = [r.under(f"towers/{m}", f"towers.{m}") for m, name in towers.items() for r in TOWERS[name]]
    rules += [r.under(f"heads/{m}", f"heads.{m}") for m in towers for r in _HEAD]
    learnt = [
        Rule(f"objectives/{{term}}/{one}", f"{many}.{{term}}")
        for one, many in (("log_scale", "log_scales"), ("bias", "biases"))
    ]
    return (*rules, *learnt)
