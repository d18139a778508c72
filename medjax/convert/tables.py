"""The weights of medjax's own encoders: Flax tree <-> the modules of `medjax.torch.modeling`, which have like names.

Paths are those of an exported tree, "towers/<modality>/params/..." and "towers/<modality>/batch_stats/...".
"""

from collections.abc import Mapping

from medjax.convert.forms import CONV_1D, CONV_2D, Form
from medjax.convert.resnet import Counter
from medjax.convert.rules import Rule, linear, norm, under

_ATTENTION = (
    *(rule for name in ("query", "key", "value", "out") for rule in linear(name, name)),
    *norm("query_norm", "query_norm"),
    *norm("key_norm", "key_norm"),
)
_MLP_LAYERS = tuple(rule for name in ("up", "gate", "down") for rule in linear(name, name))
_BLOCKS = under(
    "blocks/block_{i}",
    "blocks.{i}",
    (
        *under("attention", "attention", _ATTENTION),
        *under("mlp", "mlp", _MLP_LAYERS),
        *(rule for part in ("attention", "mlp") for rule in norm(f"norm_{part}", f"norm_{part}")),
        *(Rule(f"scale_{part}", f"scale_{part}") for part in ("attention", "mlp")),
    ),
)
_POOL = (
    Rule("probe", "probe"),
    *under("attention", "attention", _ATTENTION),
    *under("mlp", "mlp", _MLP_LAYERS),
    *norm("norm", "norm"),
)
_TABLES = ("cls", "cls_position", "registers", "mask_token", "positions", "depth_positions", "lead_positions")
_TRUNK = (
    *linear("patch_embed", "patch_embed"),
    *(Rule(name, name) for name in _TABLES),
    *norm("norm_before", "norm_before"),
    *_BLOCKS,
    *norm("norm", "norm"),
    *under("attention_pool", "attention_pool", _POOL),
    *linear("pooler", "pooler"),
)
_ECG = (
    *_TRUNK,
    Rule("conv_{i}/kernel", "convs.{i}.weight", CONV_1D),
    Rule("conv_{i}/bias", "convs.{i}.bias"),
    *norm("norm_conv_{i}", "conv_norms.{i}"),
)
_LABS = (*_TRUNK, *(Rule(f"number_{name}", f"number_{name}") for name in ("weight", "bias", "missing")))
_TEXT = (
    Rule("words/embedding", "words.weight"),
    Rule("positions", "positions"),
    Rule("types", "types"),
    *norm("norm", "norm"),
    *_BLOCKS,
    *norm("last_norm", "last_norm"),
    *linear("pooler", "pooler"),
)
_MLP = linear("layer_{i}", "layers.{i}")
_HEAD = (*linear("hidden", "hidden"), *linear("out", "out"))
_AGGREGATION = (
    *under(
        "attention",
        "attention",
        (*norm("norm", "norm"), *under("attention", "attention", _ATTENTION), Rule("scale", "scale")),
    ),
    *(rule for name in ("tanh", "gate", "weight") for rule in linear(f"gated/{name}", f"gated.{name}", bias=False)),
)


def _resnet(conv: Form) -> tuple[Rule, ...]:
    """Rules of parameters and batch statistics."""
    places = {
        "stem": "stem",
        "stage_{i}/block_{j}/layer_{k}": "stages.{i}.{j}.layers.{k}",
        "stage_{i}/block_{j}/shortcut": "stages.{i}.{j}.shortcut",
    }
    rules = []
    for flax, torch in places.items():
        rules += [Rule(f"params/{flax}/conv/kernel", f"{torch}.conv.weight", conv)]
        rules += norm(f"params/{flax}/norm", f"{torch}.norm")
        rules += [Rule(f"batch_stats/{flax}/norm/{name}", f"{torch}.norm.running_{name}") for name in ("mean", "var")]
        rules += [Rule(f"batch_stats/{flax}/norm/batches", f"{torch}.norm.num_batches_tracked", Counter())]
    return tuple(rules)


# Encoder name, as in `medjax.models.TOWERS` -> its rules, paths from the collection on.
TOWERS: dict[str, tuple[Rule, ...]] = {
    "resnet": _resnet(CONV_2D),
    "resnet_ecg": _resnet(CONV_1D),
    "resnet_ecg_image": _resnet(CONV_2D),
    "vit": under("params", "", _TRUNK),
    "ecg_vit": under("params", "", _ECG),
    "labs_transformer": under("params", "", _LABS),
    "mlp": under("params", "", _MLP),
} | {name: under("params", "", _TEXT) for name in ("bert", "roberta", "clip_text", "siglip_text")}


def encoder_rules(towers: Mapping[str, str]) -> tuple[Rule, ...]:
    """The rules of a whole encoder: towers, heads, pooling of items, logit scales and biases.

    towers: `{modality: encoder name}`.
    """
    rules = [r.under(f"towers/{m}", f"towers.{m}") for m, name in towers.items() for r in TOWERS[name]]
    rules += [r.under(f"heads/{m}", f"heads.{m}") for m in towers for r in _HEAD]
    rules += [r.under(f"pooling/{m}", f"pooling.{m}") for m in towers for r in _AGGREGATION]
    learnt = [
        Rule(f"objectives/{{term}}/{one}", f"{many}.{{term}}")
        for one, many in (("log_scale", "log_scales"), ("bias", "biases"))
    ]
    return (*rules, *learnt)
