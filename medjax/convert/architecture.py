"""What `medjax.torch.modeling` needs to rebuild the encoders of a method: the config.json of an export."""

import dataclasses
from collections.abc import Mapping
from typing import Any

FORMAT = "medjax-torch-1"
# What an export holds of a method's parameters; decoders and the like stay behind.
PARTS = ("towers", "heads", "objectives")


def exported_part(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that an export holds."""
    return {k: params[k] for k in PARTS if k in params}


def architecture(
    towers: Mapping[str, Any], heads: Mapping[str, Any], params: Mapping[str, Any], specs: Mapping[str, Any]
) -> dict[str, Any]:
    """JSON: of each modality its tower, with all sizes, and its head, and the names of the logit scales and biases.

    towers: `{modality: tower config}`. heads: `{modality: HeadConfig}`, empty where a method projects nothing; then E
    is the width of the towers. params: sizes are read off them. specs: preprocessing of each modality.
    """
    modalities, objectives = {}, params.get("objectives", {})
    for m, config in towers.items():
        tower = {k: v for k, v in dataclasses.asdict(config).items() if k != "dtype"} | _sizes(params["towers"][m])
        head = dataclasses.asdict(heads[m]) if m in heads else None
        width = tower["hidden"][-1] if tower["name"] == "mlp" else tower["width"]
        modalities[m] = {"kind": specs[m]["kind"], "width": width, "tower": tower, "head": head}
    return {
        "format": FORMAT,
        "model_type": "medjax",
        "embed_dim": _embed_dim(params, modalities),
        "modalities": modalities,
        "log_scales": sorted(objectives),
        "biases": sorted(k for k, learnt in objectives.items() if "bias" in learnt),
    }


def _sizes(tower: Mapping[str, Any]) -> dict[str, int]:
    """Sizes that follow from the data and not from the configuration."""
    if "patch_embed" in tower:
        return {"patch_dim": tower["patch_embed"]["kernel"].shape[0], "patches": tower["positions"].shape[1]}
    return {"inputs": tower["layer_0"]["kernel"].shape[0]} if "layer_0" in tower else {}


def _embed_dim(params: Mapping[str, Any], modalities: Mapping[str, Any]) -> int | None:
    """E; None where there are no heads and the towers differ in width."""
    sizes = {head["out"]["kernel"].shape[1] for head in params.get("heads", {}).values()}
    sizes = sizes or {c["width"] for c in modalities.values()}
    return sizes.pop() if len(sizes) == 1 else None
