"""What `medjax.torch.modeling` needs to rebuild the encoders of a method: the config.json of an export."""

import dataclasses
from collections.abc import Mapping
from typing import Any

FORMAT = "medjax-torch-2"
# Beside the towers, what an export holds of a method's parameters; decoders and the like stay behind.
_PARTS = ("heads", "pooling", "objectives")
# Options of how our towers compute and train, which their PyTorch counterparts do not have.
_OURS = ("dtype", "scan", "remat", "attention", "drop_path", "drop_key", "drop_key_schedule", "patch_dropout")


def exported_tree(params: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """`{"towers": {modality: variables}, "heads": ..., "pooling": ..., "objectives": ...}`, what an export holds."""
    stats = state.get("batch_stats", {})
    towers = {m: {"params": p} | ({"batch_stats": stats[m]} if m in stats else {}) for m, p in params["towers"].items()}
    return {"towers": towers} | {k: params[k] for k in _PARTS if k in params}


def params_and_state(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inverse of `exported_tree`."""
    towers = tree["towers"]
    stats = {m: variables["batch_stats"] for m, variables in towers.items() if "batch_stats" in variables}
    params = {**tree, "towers": {m: variables["params"] for m, variables in towers.items()}}
    return params, {"batch_stats": stats} if stats else {}


def architecture(
    towers: Mapping[str, Any],
    heads: Mapping[str, Any],
    pooling: Mapping[str, Any],
    tree: Mapping[str, Any],
    specs: Mapping[str, Any],
) -> dict[str, Any]:
    """JSON: of each modality its tower, with all sizes, its pooling and head, and the names of logit scales and biases.

    towers: `{modality: tower config}`. heads: `{modality: HeadConfig}`, empty where a method projects nothing; then E
    is the width of the towers. pooling: `{modality: PoolConfig}` where a module pools the items. tree: of
    `exported_tree`; sizes are read off it. specs: preprocessing of each modality.
    """
    modalities, objectives = {}, tree.get("objectives", {})
    for m, config in towers.items():
        options = {k: v for k, v in dataclasses.asdict(config).items() if k not in _OURS}
        tower = options | _sizes(config.name, tree["towers"][m]["params"])
        head, pool = (dataclasses.asdict(found[m]) if m in found else None for found in (heads, pooling))
        width = _width(config)
        modalities[m] = {"kind": specs[m]["kind"], "width": width, "tower": tower, "pooling": pool, "head": head}
    return {
        "format": FORMAT,
        "model_type": "medjax",
        "embed_dim": _embed_dim(tree, modalities),
        "modalities": modalities,
        "log_scales": sorted(objectives),
        "biases": sorted(k for k, learnt in objectives.items() if "bias" in learnt),
    }


def _width(config: Any) -> int:
    """D of the pooled features."""
    if config.name == "mlp":
        return config.hidden[-1]
    if config.name.startswith("resnet"):
        return config.stage_widths[-1]
    return config.pooler_width or config.width if getattr(config, "pooler", "") in ("linear", "tanh") else config.width


def _sizes(name: str, params: Mapping[str, Any]) -> dict[str, int]:
    """Sizes that follow from the data and not from the configuration. table: rows of the positions."""
    at = {
        "patch_dim": ("patch_embed", "kernel", 0),
        "table": ("positions", 1),
        "depth_grid": ("depth_positions", 1),
        "leads": ("lead_positions", 1) if "lead_positions" in params else ("conv_0", "kernel", 1),
        "numbers": ("number_weight", 1),
        "inputs": ("stem", "conv", "kernel", -2) if name.startswith("resnet") else ("layer_0", "kernel", 0),
    }
    sizes = {}
    for size, (*path, axis) in at.items():
        leaf: Any = params
        for part in path:
            leaf = leaf.get(part, {})
        if hasattr(leaf, "shape"):
            sizes[size] = leaf.shape[axis]
    return {} if "words" in params else sizes


def _embed_dim(tree: Mapping[str, Any], modalities: Mapping[str, Any]) -> int | None:
    """E; None where there are no heads and the towers differ in width."""
    sizes = {head["out"]["kernel"].shape[1] for head in tree.get("heads", {}).values()}
    sizes = sizes or {c["width"] for c in modalities.values()}
    return sizes.pop() if len(sizes) == 1 else None
