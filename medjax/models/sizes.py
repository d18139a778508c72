"""Published sizes of encoders by name: `variant="B/16"` stands for these options."""

from collections.abc import Mapping
from typing import Any

from medjax.errors import check_choice


def _size(width: int, depth: int, heads: int, hidden: int = 0, **more: Any) -> dict[str, Any]:
    return dict(width=width, depth=depth, heads=heads, hidden=hidden or 4 * width) | more


# B, L and H: arXiv 2010.11929; Ti and S: 2012.12877; g and G: 2106.04560; So400m: 2305.13035; M is big_vision's.
VIT = {
    "Ti": _size(192, 12, 3),
    "S": _size(384, 12, 6),
    "M": _size(512, 12, 8),
    "B": _size(768, 12, 12),
    "L": _size(1024, 24, 16),
    "So400m": _size(1152, 27, 16, 4304),
    "H": _size(1280, 32, 16),
    "g": _size(1408, 40, 16, 6144),
    "G": _size(1664, 48, 16, 8192),
}
# DINOv2's giant (arXiv 2304.07193): gated MLPs of two thirds of the hidden width.
DINOV2_GIANT = _size(1536, 40, 24, 4096, swiglu=True)
# arXiv 1810.04805, and 1908.08962 for those below base.
BERT = {
    "tiny": _size(128, 2, 2),
    "mini": _size(256, 4, 4),
    "small": _size(512, 4, 8),
    "medium": _size(512, 8, 8),
    "base": _size(768, 12, 12),
    "large": _size(1024, 24, 16),
}
# The text towers of CLIP's image sizes: B and L of arXiv 2103.00020, the others of open_clip.
CLIP_TEXT = {"B": _size(512, 12, 8), "L": _size(768, 12, 12), "H": _size(1024, 24, 16), "g": _size(1024, 24, 16)} | {
    "G": _size(1280, 32, 20)
}
# arXiv 2303.15343: text towers as large as the image towers.
SIGLIP_TEXT = {name: VIT[name] for name in ("B", "L", "So400m")}
# arXiv 1512.03385 table 1.
RESNET = {
    "18": dict(block="basic", depths=(2, 2, 2, 2)),
    "34": dict(block="basic", depths=(3, 4, 6, 3)),
    "50": dict(block="bottleneck", depths=(3, 4, 6, 3)),
    "101": dict(block="bottleneck", depths=(3, 4, 23, 3)),
    "152": dict(block="bottleneck", depths=(3, 8, 36, 3)),
}
# Symile's encoder of lab tests (arXiv 2411.01053 and its code), and arXiv 2106.11959, the defaults of its appendix.
LABS_MLP = {"symile": dict(hidden=(256, 1024))}
LABS_TRANSFORMER = {"default": _size(192, 3, 8, 256, swiglu=True)}

SIZES: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "vit": VIT | {"dinov2_g": DINOV2_GIANT},
    "ecg_vit": VIT,
    "bert": BERT,
    "roberta": {name: BERT[name] for name in ("base", "large")},
    "clip_text": CLIP_TEXT,
    "siglip_text": SIGLIP_TEXT,
    "resnet": RESNET,
    "resnet_ecg": RESNET,
    "resnet_ecg_image": RESNET,
    "mlp": LABS_MLP,
    "labs_transformer": LABS_TRANSFORMER,
}


def with_variant(tower: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options with those that a named size stands for; "B/16" has its patch behind the stroke.

    Raises:
      UserError: an unknown size.
    """
    size, _, patch = str(options.get("variant", "")).partition("/")
    if not size or tower not in SIZES:
        return dict(options)
    check_choice(f"size in {where}.variant", size, SIZES[tower])
    named = dict(SIZES[tower][size]) | ({"patch": int(patch)} if patch.isdigit() else {})
    return named | dict(options)
