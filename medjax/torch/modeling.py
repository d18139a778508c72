"""medjax encoders in PyTorch: architecture, preprocessing and loading of an export, in one file of its own.

    encoder = Encoder.from_pretrained("EXPORT")
    encoder.embed({"image": ["a.png", "b.png"], "text": ["No effusion."]})   # {modality: float32[n, E]}

Needs torch, numpy and safetensors; Pillow where pictures are read, tokenizers for text. Shapes: b rows, n studies,
N items a study, L tokens, D width, E embedding, C channels or leads, T samples.
"""

import io
import itertools
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from torch import Tensor, nn

FORMAT = "medjax-torch-2"


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
}


class Features(NamedTuple):
    """pooled: [b, D]. tokens: [b, L, D]. mask: bool[b, L], false for padding. prefix: how many leading tokens stand for
    no place of the input."""

    pooled: Tensor
    tokens: Tensor
    mask: Tensor
    prefix: int = 0


class Attention(nn.Module):
    """Multi-head attention of [b, q, D] to [b, k, D]; keep: bool[b, k], what is attended to, or None."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        width, self.heads, self.causal = c["width"], c["heads"], c["causal"]
        self.query, self.key, self.value = (nn.Linear(width, width, bias=c["qkv_bias"]) for _ in range(3))
        self.out, each = nn.Linear(width, width), width // self.heads
        self.query_norm, self.key_norm = (
            nn.LayerNorm(each, c["epsilon"]) if c["qk_norm"] else nn.Identity() for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor, keep: Tensor | None = None) -> Tensor:
        q, k, v = (
            f(z).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f, z in ((self.query, x), (self.key, y), (self.value, y))
        )
        q, k = self.query_norm(q), self.key_norm(k)
        allowed = None if keep is None else keep[:, None, None, :]
        if self.causal:
            past = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=x.device).tril()
            allowed = past if allowed is None else past & allowed
        if allowed is not None:  # a large number and not infinity, for rows in which nothing is allowed
            allowed = torch.zeros_like(allowed, dtype=q.dtype).masked_fill(~allowed, 0.7 * torch.finfo(q.dtype).min)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an activation between, or a gated one (arXiv 2002.05202)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        width, hidden = c["width"], c["hidden"] or int(c["width"] * c["mlp_ratio"])
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gate = nn.Linear(width, hidden) if c["swiglu"] else None
        self.activation = ACTIVATIONS[c["activation"]]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention and MLP, each with a residual; norms before them (ViT) or after the sum (BERT)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.norm_first, self.attention, self.mlp = c["norm_first"], Attention(c), Mlp(c)
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(c["width"], c["epsilon"]) for _ in range(2))
        self.scale_attention, self.scale_mlp = (
            nn.Parameter(torch.ones(c["width"])) if c["layer_scale"] else None for _ in range(2)
        )
        self.dropout = nn.Dropout(c["dropout"])

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self._residual(x, self.norm_attention, lambda y: self.attention(y, y, keep), self.scale_attention)
        return self._residual(x, self.norm_mlp, self.mlp, self.scale_mlp)

    def _residual(self, x: Tensor, norm: nn.Module, layer, scale: Tensor | None) -> Tensor:
        change = layer(norm(x) if self.norm_first else x)
        change = self.dropout(change if scale is None else change * scale)
        return x + change if self.norm_first else norm(x + change)


class AttentionHead(nn.Module):
    """A learnt query that attends to all tokens, and an MLP with a residual (arXiv 2106.04560)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, c["width"]))
        self.attention, self.mlp, self.norm = Attention(c), Mlp(c), nn.LayerNorm(c["width"], c["epsilon"])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(self.probe.expand(len(x), -1, -1), x, mask)
        return (x + self.mlp(self.norm(x)))[:, 0]


class Trunk(nn.Module):
    """From embedded patches to features: extra tokens, blocks, norms and pooling."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.c, width = c, c["width"]
        has_cls = c["cls"] or c["pool"] == "cls"
        self.prefix = int(has_cls) + c["registers"]
        self.cls = _table(1, 1, width) if has_cls else None
        self.cls_position = _table(1, 1, width) if has_cls and c["cls_position"] else None
        self.registers = _table(1, c["registers"], width) if c["registers"] else None
        self.mask_token = _table(1, width) if c["mask_token"] else None
        self.norm_before = nn.LayerNorm(width, c["epsilon"]) if c["norm_before"] else nn.Identity()
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["depth"]))
        self.norm = nn.LayerNorm(width, c["epsilon"])
        self.attention_pool = AttentionHead(c) if c["pool"] == "attention" else None
        self.pooler = nn.Linear(width, width) if c["pooler"] else None

    def run(self, x: Tensor, keep: Tensor | None = None) -> Features:
        """x: [b, L, D], patches with their positions. keep: bool[b, L], which of them exist."""
        cls = self.cls if self.cls_position is None else self.cls + self.cls_position
        extra = [t.expand(len(x), -1, -1) for t in (cls, self.registers) if t is not None]
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if keep is None else keep
        mask = F.pad(mask, (self.prefix, 0), value=True)
        x = self.norm_before(torch.cat([*extra, x], dim=1))
        for block in self.blocks:
            x = block(x, None if keep is None else mask)
        x = self.norm(x) if self.c["norm"] == "tokens" else x
        pooled = self._pool(x, mask)
        pooled = self.norm(pooled) if self.c["norm"] == "pooled" else pooled
        pooled = pooled if self.pooler is None else torch.tanh(self.pooler(pooled))
        return Features(pooled, x, mask, self.prefix)

    def _pool(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.attention_pool is not None:
            return self.attention_pool(x, mask)
        return x[:, 0] if self.c["pool"] == "cls" else masked_mean(x[:, self.prefix :], mask[:, self.prefix :])


class VisionTransformer(Trunk):
    """Pictures [b, H, W, C], volumes and video [b, T, H, W, C] (arXiv 2010.11929)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__(c)
        self.patch_embed = nn.Linear(c["patch_dim"], c["width"], bias=c["patch_bias"])
        self.positions = _table(1, c["table"], c["width"]) if c["positions"] == "learned" else None
        learnt_depth = c["positions"] == "learned" and c["depth_grid"]
        self.depth_positions = _table(1, c["depth_grid"], c["width"]) if learnt_depth else None

    def forward(self, value: Tensor) -> Features:
        c = self.c
        x = value[:, None] if value.ndim == 4 else value
        x = x.expand(-1, c["frames"], -1, -1, -1) if x.shape[1] == 1 else x
        x = x.expand(*x.shape[:-1], c["channels"]) if x.shape[-1] == 1 and c["channels"] else x
        x = x.unflatten(3, (-1, c["patch"])).unflatten(2, (-1, c["patch"])).unflatten(1, (-1, c["frames"]))
        grid = x.shape[1], x.shape[3], x.shape[5]  # b t f h p w q c
        x = x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(1, 3)
        return self.run(self.patch_embed(x) + self._positions(grid).to(x))

    def _positions(self, grid: tuple[int, int, int]) -> Tensor:
        """[1, L, D]"""
        c, (t, h, w) = self.c, grid
        if self.positions is None:
            return sincos_positions((h, w) if t == 1 else grid, c["width"])[None]
        length = self.positions.shape[1]
        old = c["grid"] or ((h, w) if length == h * w else (math.isqrt(length),) * 2)
        x = resize_positions(self.positions[0], tuple(old), (h, w), c["antialias"])
        if self.depth_positions is not None:
            depth = resize_positions(self.depth_positions[0], (1, c["depth_grid"]), (1, t))
            x = depth[:, None] + x
        return x.reshape(1, -1, c["width"])


class EcgTransformer(Trunk):
    """ECGs [b, C, T], of which `leads`, bool[b, C], were recorded; default all."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__(c)
        width = c["width"]
        if c["tokens"] == "conv":
            self.convs = nn.ModuleList((nn.Conv1d(c["leads"], 256, 5, 5), nn.Conv1d(256, width, 5)))
            self.conv_norms = nn.ModuleList((nn.LayerNorm(256, 1e-6), nn.LayerNorm(width, 1e-6)))
        else:
            self.patch_embed = nn.Linear(c["patch_dim"], width)
        self.positions = _table(1, c["table"], width)
        self.lead_positions = _table(1, c["leads"], width) if c["tokens"] == "lead_time" else None

    def forward(self, value: Tensor, leads: Tensor | None = None) -> Features:
        x, keep = value if leads is None else value.masked_fill(~leads[..., None], 0), None
        if self.c["tokens"] == "conv":
            for conv, norm in zip(self.convs, self.conv_norms, strict=True):
                x = F.relu(norm(conv(x).transpose(1, 2))).transpose(1, 2)
            x = x.transpose(1, 2)
        else:
            x = x.unflatten(2, (-1, self.c["patch"]))  # b c l p
            x = x.transpose(1, 2).flatten(2) if self.c["tokens"] == "time" else x.flatten(1, 2)
            x = self.patch_embed(x)
        steps = x.shape[1] // (1 if self.lead_positions is None else value.shape[1])
        positions = resize_positions(self.positions[0], (1, self.positions.shape[1]), (1, steps))
        if self.lead_positions is not None:
            positions = (positions[None] + self.lead_positions[0, :, None]).flatten(0, 1)
            keep = None if leads is None else leads.repeat_interleave(steps, dim=1)
        return self.run(x + positions, keep)


class LabsTransformer(Trunk):
    """Numbers [b, F], of which `observed` [b, F] is 1 where there is one; tokens are numbers (arXiv 2106.11959)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__(c)
        shape = 1, c["numbers"], c["width"]
        self.number_weight, self.number_bias = _table(*shape), _table(*shape)
        self.number_missing = _table(*shape) if c["missing"] == "token" else None

    def forward(self, value: Tensor, observed: Tensor | None = None) -> Features:
        there = torch.ones_like(value, dtype=torch.bool) if observed is None else observed > 0
        x = torch.where(there, value, 0)[..., None] * self.number_weight + self.number_bias
        if self.number_missing is None:
            return self.run(x, there)
        return self.run(torch.where(there[..., None], x, self.number_missing))


class TextTransformer(nn.Module):
    """`tokens` int[b, L], padded on the right, of which `lengths` int[b] are real; default all."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.c, width = c, c["width"]
        self.words = nn.Embedding(c["vocab_size"], width)
        self.positions = _table(c["positions"] + c["position_offset"], width)
        self.types = _table(c["types"], width) if c["types"] else None
        self.norm, self.last_norm = (
            nn.LayerNorm(width, c["epsilon"]) if c[name] else nn.Identity() for name in ("embed_norm", "last_norm")
        )
        self.dropout = nn.Dropout(c["dropout"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["depth"]))
        self.pooler = nn.Linear(width, c["pooler_width"] or width) if c["pooler"] != "none" else None

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Features:
        c, place = self.c, torch.arange(tokens.shape[1], device=tokens.device)
        padded = lengths is not None and not c["padded"]
        mask = place[None] < lengths[:, None] if padded else torch.ones_like(tokens, dtype=torch.bool)
        row = place.expand_as(tokens) + c["position_offset"]
        if c["position_offset"]:  # RoBERTa gives padding the row before the first position
            row = row.where(mask, c["position_offset"] - 1)
        x = self.words(tokens) + self.positions[row]
        x = self.dropout(self.norm(x if self.types is None else x + self.types[0]))
        for block in self.blocks:
            x = block(x, mask if padded else None)
        x = self.last_norm(x)
        pooled = self._pool(x, mask)
        if c["pooler"] in ("linear", "tanh"):
            pooled = self.pooler(pooled)
        return Features(torch.tanh(pooled) if c["pooler"] == "tanh" else pooled, x, mask)

    def _pool(self, x: Tensor, mask: Tensor) -> Tensor:
        pool = self.c["pool"]
        if pool == "mean":
            return masked_mean(x, mask)
        if pool == "max":
            return x.masked_fill(~mask[..., None], torch.finfo(x.dtype).min).amax(1)
        if pool == "eos":
            return x[torch.arange(len(x), device=x.device), (mask.sum(1) - 1).clamp(min=0)]
        return x[:, 0 if pool == "cls" else -1]


class ConvNorm(nn.Module):
    """A convolution, in one or two axes, and a batch or group norm."""

    def __init__(self, c: Mapping[str, Any], channels: int, features: int, kernel: int, stride: int):
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if c["name"] == "resnet_ecg" else (nn.Conv2d, nn.BatchNorm2d)
        self.conv = conv(channels, features, kernel, stride, kernel // 2, bias=False)
        self.norm = norm(features) if c["norm"] == "batch" else nn.GroupNorm(c["groups"], features)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    """Two or three convolutions with a residual, which is projected where its shape changes."""

    def __init__(self, c: Mapping[str, Any], channels: int, width: int, stride: int):
        super().__init__()
        inner, layers = width // 4, ((width, 3, stride), (width, 3, 1))
        if c["block"] == "bottleneck":
            first, second = (stride, 1) if c["downsample_in_bottleneck"] else (1, stride)
            layers = ((inner, 1, first), (inner, 3, second), (width, 1, 1))
        inputs = (channels, *(features for features, *_ in layers))
        self.layers = nn.ModuleList(ConvNorm(c, i, *layer) for i, layer in zip(inputs, layers, strict=False))
        changes = channels != width or stride != 1
        self.shortcut = ConvNorm(c, channels, width, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, layer in enumerate(self.layers):
            y = layer(F.relu(y) if i else y)
        return F.relu(self.shortcut(x) + y)


class ResNet(nn.Module):
    """Pictures [b, H, W, C] or, by name, ECGs [b, C, T] along time or as pictures T high (arXiv 1512.03385). Tokens
    are the places of the last feature map."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.c, factor = c, 4 if c["block"] == "bottleneck" else 1
        widths = c["widths"] or [c["stem"] * 2**i * factor for i in range(len(c["depths"]))]
        self.stem, inputs = ConvNorm(c, c["inputs"], c["stem"], 7, 2), (c["stem"], *widths)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ResidualBlock(c, width if j else inputs[i], width, 2 if i and not j else 1) for j in range(depth)
            )
            for i, (width, depth) in enumerate(zip(widths, c["depths"], strict=True))
        )

    def forward(self, value: Tensor, leads: Tensor | None = None) -> Features:
        x = value if leads is None else value.masked_fill(~leads[..., None], 0)
        if self.c["name"] == "resnet_ecg_image":
            x = x.transpose(1, 2)[:, None]
        elif self.c["name"] == "resnet":
            x = x.movedim(-1, 1)
        x = x.expand(-1, self.c["inputs"], *x.shape[2:]) if x.shape[1] == 1 else x
        x = F.relu(self.stem(x))
        x = F.max_pool1d(x, 3, 2, 1) if x.ndim == 3 else F.max_pool2d(x, 3, 2, 1)
        for block in (block for stage in self.stages for block in stage):
            x = block(x)
        tokens = x.flatten(2).transpose(1, 2)
        return Features(tokens.mean(1), tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device))


class TabularMlp(nn.Module):
    """Numbers [b, F], of which `observed` [b, F] is 1 where there is one; default all."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        widths = (c["inputs"], *c["hidden"])
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.dropout = nn.Dropout(c["dropout"])

    def forward(self, value: Tensor, observed: Tensor | None = None) -> Features:
        observed = torch.ones_like(value) if observed is None else observed
        x = torch.cat([value * observed, observed], dim=1)
        for layer in self.layers:
            x = self.dropout(F.gelu(layer(x)))
        return Features(x, x[:, None], torch.ones(len(x), 1, dtype=torch.bool, device=x.device))


TOWERS = {
    "vit": VisionTransformer,
    "resnet": ResNet,
    "resnet_ecg": ResNet,
    "resnet_ecg_image": ResNet,
    "ecg_vit": EcgTransformer,
    "bert": TextTransformer,
    "roberta": TextTransformer,
    "clip_text": TextTransformer,
    "siglip_text": TextTransformer,
    "mlp": TabularMlp,
    "labs_transformer": LabsTransformer,
}


class AttentionPool(nn.Module):
    """Items [b, N, D] -> [b, D]: self-attention among them as a scaled residual, then their mean."""

    def __init__(self, c: Mapping[str, Any], width: int):
        super().__init__()
        blocks = {"width": width, "heads": c["heads"], "causal": False, "qkv_bias": True, "qk_norm": False}
        self.norm, self.attention = nn.LayerNorm(width, 1e-6), Attention(blocks | {"epsilon": 1e-6})
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(x)
        return masked_mean(x + self.attention(normed, normed, mask) * self.scale, mask)


class GatedAttentionPool(nn.Module):
    """Items [b, N, D] -> [b, D]: a weighted mean (arXiv 1802.04712, equation 9); zeros where there is no item."""

    def __init__(self, c: Mapping[str, Any], width: int):
        super().__init__()
        self.tanh, self.gate = (nn.Linear(width, c["hidden"], bias=False) for _ in range(2))
        self.weight = nn.Linear(c["hidden"], 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        logits = self.weight(torch.tanh(self.tanh(x)) * torch.sigmoid(self.gate(x)))[..., 0]
        weights = logits.masked_fill(~mask, torch.finfo(x.dtype).min).softmax(1) * mask
        return torch.einsum("bn,bnd->bd", weights, x)


POOLS = {"attention": AttentionPool, "gated": GatedAttentionPool}


class Head(nn.Module):
    """The projection [b, D] -> [b, E]."""

    def __init__(self, c: Mapping[str, Any], width: int, embed_dim: int):
        super().__init__()
        self.hidden = nn.Linear(width, c["hidden"]) if c["hidden"] else None
        self.out = nn.Linear(c["hidden"] or width, embed_dim, bias=c["centre"])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x if self.hidden is None else F.gelu(self.hidden(x)))


def _table(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """[b, L, D], bool[b, L] -> [b, D]: the mean where the mask is true; zero where it is nowhere."""
    weight = mask[..., None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int], antialias: bool = False) -> Tensor:
    """[prod(new), D]: a table of positions on the grid `old` for the grid `new`."""
    if old == new:
        return table
    x = table.unflatten(0, old).permute(2, 0, 1)[None]
    x = F.interpolate(x, new, mode="bicubic", align_corners=False, antialias=antialias)
    return x[0].permute(1, 2, 0).flatten(0, 1)


def sincos_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """[prod(grid), width]: sines and cosines of each axis' coordinate side by side (arXiv 2104.02057, section 4.1)."""
    each = width // (2 * len(grid))
    omega = 10000.0 ** (-np.arange(each) / each)
    axes = np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")
    table = np.concatenate([f(axis.reshape(-1, 1) * omega) for axis in axes for f in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(np.pad(table, ((0, 0), (0, width - table.shape[1]))).astype(np.float32))


def unit(x: Tensor) -> Tensor:
    """float32 of length 1 along the last axis; a zero vector stays zero."""
    x = x.float()
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-12)


def prepare_image(spec: Mapping[str, Any], value: Any) -> np.ndarray:
    """A path, encoded bytes, a Pillow image or uint8[H, W], [H, W, 3] or uint16[H, W] -> float32[size, size, channels].

    16-bit gray is not rounded to 8 bits.
    """
    from PIL import Image

    if isinstance(value, str | Path | bytes):
        picture = Image.open(io.BytesIO(value) if isinstance(value, bytes) else value)
    elif isinstance(value, Image.Image):
        picture = value
    else:
        pixels = np.asarray(value)
        if (pixels.dtype, pixels.ndim) not in ((np.uint8, 2), (np.uint8, 3), (np.uint16, 2)):
            raise ValueError(
                f"an image must be a path or uint8[H, W], [H, W, 3] or uint16[H, W], got {pixels.dtype}{pixels.shape}"
            )
        picture = Image.fromarray(pixels)
    if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16).astype(np.float32) / np.float32(257))
    else:
        picture = picture.convert("L" if spec["channels"] == 1 else "RGB")
    if spec.get("window"):
        picture = _windowed(picture, spec["window"])
    pixels = np.asarray(_fit(picture, spec["size"], spec["fit"])).astype(np.float32)
    pixels *= np.float32(1 / (255.0 * spec["std"]))
    pixels += np.float32(-spec["mean"] / spec["std"])
    if pixels.ndim == 2 and spec["channels"] == 3:
        return np.repeat(pixels[..., None], 3, 2)
    return pixels.reshape(spec["size"], spec["size"], spec["channels"])


def _windowed(picture, window):
    """These two percentiles of the pixels at 0 and 255, linear between and clipped beyond."""
    from PIL import Image

    pixels = np.asarray(picture)
    low, high = np.percentile(pixels, window)
    out = ((pixels - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))).clip(0, 255)
    return Image.fromarray(out if picture.mode == "F" else np.rint(out).astype(np.uint8))


def _fit(picture, size: int, how: str):
    """A square by bilinear resampling with antialiasing; padding is black."""
    from PIL.Image import Resampling

    if how == "stretch":
        return picture.resize((size, size), Resampling.BILINEAR)
    width, height = picture.size
    scale = size / (max(width, height) if how == "pad" else min(width, height))
    new = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    return picture.resize(new, Resampling.BILINEAR).crop((left, top, left + size, top + size))


def prepare_ecg(spec: Mapping[str, Any], value: Any) -> Any:
    """[C, T] in mV, leads and rate as `spec` says -> float32[C, samples]: the middle, or padded with zeros.

    A row of NaN is a lead that was not recorded: zeros, and where the encoder is told, false in `leads` bool[C].
    """
    signal, leads = np.asarray(value, np.float32), spec["leads"]
    there = ~np.isnan(signal).all(axis=1) if signal.ndim == 2 else np.zeros(0, bool)
    if len(there) != len(leads) or not there.any() or not np.isfinite(signal[there]).all():
        raise ValueError(f"an ECG must be finite numbers [{len(leads)}, T] ({', '.join(leads)}), got {signal.shape}")
    signal = np.where(there[:, None], signal, np.float32(0))
    spare = signal.shape[1] - spec["samples"]
    if spare > 0:
        signal = signal[:, spare // 2 : spare // 2 + spec["samples"]]
    signal = np.pad(signal, ((0, 0), (0, max(0, -spare))))
    signal = np.clip(signal / np.float32(spec["scale"]), np.float32(-spec["clip"]), np.float32(spec["clip"]))
    return {"value": signal, "leads": there} if spec.get("lead_mask") else signal


def prepare_labs(spec: Mapping[str, Any], value: Any) -> dict[str, np.ndarray]:
    """`{name: number}` or [F], NaN for missing -> scaled `value` and `observed`, float32[F] each.

    The scaling is by percentiles of the training values where `spec` has them, else to mean 0 and spread 1.
    """
    names = spec["names"]
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in names]:
            raise ValueError(f"unknown lab values {', '.join(unknown)}; valid: {', '.join(names)}")
        value = [value.get(name, np.nan) for name in names]
    raw = np.asarray(value, np.float32)
    if raw.shape != (len(names),):
        raise ValueError(f"lab values must be [{len(names)}], got {raw.shape}")
    observed = ~np.isnan(raw)
    if "percentiles" in spec:
        ranks, centre = np.arange(1, 100) / 100, np.array(spec["centre"])
        scaled = [np.interp(x, at, ranks) for x, at in zip(raw, spec["percentiles"], strict=True)] - centre
    else:
        low, high, mean, std = (np.asarray(spec[k], np.float32) for k in ("low", "high", "mean", "std"))
        scaled = (np.clip(np.where(observed, raw, mean), low, high) - mean) / std
    return {"value": np.where(observed, scaled, 0.0).astype(np.float32), "observed": observed.astype(np.float32)}


def prepare_text(spec: Mapping[str, Any], value: Any, tokenizer) -> dict[str, np.ndarray]:
    """A string -> `tokens` int64[L], padded on the right, and their number `lengths` int64[]."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"text must be a string that is not empty, got {value!r}")
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec["length"])
    ids = tokenizer.encode(value).ids
    tokens = np.full(spec["length"], spec["pad_id"], np.int64)
    tokens[: len(ids)] = ids
    return {"tokens": tokens, "lengths": np.int64(len(ids))}


def prepare_volume(spec: Mapping[str, Any], value: Any) -> np.ndarray:
    """`{"values": [D, H, W] or [D, H, W, C], "spacing": mm along D, H, W}`, or values of 1 mm -> float32[*size, C].

    Axes: D from inferior to superior, H from anterior to posterior, W from the patient's right to the left.
    """
    given = value if isinstance(value, Mapping) else {"values": value}
    voxels, spacing = np.asarray(given["values"]), given.get("spacing", (1.0, 1.0, 1.0))
    voxels = voxels[..., None] if voxels.ndim == 3 else voxels
    if voxels.ndim != 4 or voxels.shape[3] != spec["channels"] or not np.isfinite(voxels).all():
        raise ValueError(f"a volume must be finite numbers [D, H, W, {spec['channels']}], got {voxels.shape}")
    statistics = _statistics(voxels.reshape(-1, spec["channels"]))
    size, new = spec["size"], _grid(voxels.shape[:3], spacing, spec)
    # Around a volume that is smaller than the grid there is its lowest value; of a larger one the middle is taken.
    out = np.broadcast_to(_scaled(statistics[0][0], spec, *statistics), (*size, spec["channels"])).copy()
    for axis, (n, k) in enumerate(zip(new, size, strict=True)):
        voxels = _linear(voxels, axis, n, max(0, n - k) // 2, min(n, k))
    target = tuple(slice(max(0, k - n) // 2, max(0, k - n) // 2 + n) for n, k in zip(new, size, strict=True))
    out[target] = _scaled(voxels.astype(np.float32), spec, *statistics)
    return out


def _scaled(x: np.ndarray, spec: Mapping[str, Any], percentiles: np.ndarray, mean: np.ndarray, std: np.ndarray):
    """Intensities [..., C] as the encoder takes them."""
    if spec["scaling"] == "zscore":
        return (x - mean) / np.where(std > 0, std, 1)
    low, high = np.float32(spec["window"])
    if spec["scaling"] == "percentile":
        low, high = (percentiles[round(2 * p)] for p in spec["window"])
    x = ((x - low) / np.where(high > low, high - low, 1)).clip(0, 1)
    return (x - np.float32(spec["mean"])) / np.float32(spec["std"])


def _linear(x: np.ndarray, axis: int, n: int, start: int, count: int) -> np.ndarray:
    """`count` of the n voxels, from `start`, that stand for those of an axis; linear between their middles."""
    old = x.shape[axis]
    at = ((np.arange(start, start + count) + 0.5) * (old / n) - 0.5).clip(0, old - 1)
    low = np.floor(at).astype(np.intp)
    if np.array_equal(low, at):
        return x.take(low, axis)
    high = np.minimum(low + 1, old - 1)
    weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    below, above = x.take(low, axis).astype(np.float32), x.take(high, axis).astype(np.float32)
    return below + weight * (above - below)


def _statistics(voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of [n, C]: percentiles [201, C] in steps of 0.5, mean and spread [C] of those that are not 0."""
    voxels = voxels[:: math.ceil(len(voxels) / 2**22) | 1]
    percentiles = np.percentile(voxels, np.arange(201) / 2, axis=0, method="nearest").astype(np.float32)
    counted = [x[x != 0] if x.any() else x for x in voxels.T]
    moments = [(x.mean(dtype=np.float64), x.std(dtype=np.float64)) for x in counted]
    return percentiles, *np.array(moments, np.float32).T


def _grid(shape: tuple[int, ...], spacing, spec: Mapping[str, Any]) -> tuple[int, ...]:
    """Voxels of the whole volume on the encoder's grid."""
    size, wanted = spec["size"], spec["spacing"]
    if spec["fit"] == "stretch":
        return tuple(size)
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    if spec["fit"] == "crop":
        return tuple(max(1, round(x / s)) for x, s in zip(extent, wanted or spacing, strict=True))
    proportions = wanted or (1.0, 1.0, 1.0)
    pitch = max(x / (n * p) for x, n, p in zip(extent, size, proportions, strict=True))
    return tuple(min(n, max(1, round(x / (p * pitch)))) for x, n, p in zip(extent, size, proportions, strict=True))


PREPARE = {
    "image": prepare_image,
    "ecg": prepare_ecg,
    "labs": prepare_labs,
    "text": prepare_text,
    "volume": prepare_volume,
}


class Encoder(nn.Module):
    """The towers and heads of an export with its preprocessing.

    config: of config.json. preprocessing: `{modality: spec}` of preprocessing.json. tokenizer: of `tokenizers`, where
    a modality is text.
    """

    def __init__(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], tokenizer=None):
        super().__init__()
        self.config, self.preprocessing, self.tokenizer = config, preprocessing, tokenizer
        self.towers, self.heads, self.pooling = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for m, c in config["modalities"].items():
            self.towers[m] = TOWERS[c["tower"]["name"]](c["tower"])
            if c["head"]:
                self.heads[m] = Head(c["head"], c["width"], config["embed_dim"])
            if c["pooling"]:
                name = c["pooling"]["name"]
                self.pooling[m] = nn.ModuleDict({name: POOLS[name](c["pooling"], c["width"])})
        self.log_scales = nn.ParameterDict({k: nn.Parameter(torch.zeros(())) for k in config["log_scales"]})
        self.biases = nn.ParameterDict({k: nn.Parameter(torch.zeros(())) for k in config["biases"]})

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str = "cpu") -> "Encoder":
        """Loads an export folder, in evaluation mode."""
        directory, tokenizer = Path(directory), None
        if not (directory / "config.json").is_file():
            raise FileNotFoundError(f"{directory} holds no config.json; give a folder written by medjax.bin.export")
        config = json.loads((directory / "config.json").read_text())
        if config.get("format") != FORMAT:
            raise ValueError(f"{directory} has format {config.get('format')!r}, this file reads {FORMAT!r}")
        preprocessing = json.loads((directory / "preprocessing.json").read_text())
        if any(spec["kind"] == "text" for spec in preprocessing.values()):
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(directory / "tokenizer" / "tokenizer.json"))
        encoder = cls(config, preprocessing, tokenizer)
        encoder.load_state_dict(load_file(directory / "model.safetensors"))
        return encoder.to(device).eval()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those it can embed."""
        return tuple(self.towers)

    @property
    def logit_scales(self) -> dict[str, float]:
        """The learnt multiplier of the similarities, by objective."""
        return {k: float(v.detach().exp()) for k, v in self.log_scales.items()}

    @property
    def logit_biases(self) -> dict[str, float]:
        """What is added to the scaled similarities, by objective; only those that have one, as SigLIP."""
        return {k: float(v.detach()) for k, v in self.biases.items()}

    def preprocess(self, modality: str, value: Any) -> Any:
        """A raw input as the array, or dict of arrays, that `encode` takes rows of; see the `prepare_*` functions."""
        self._check(modality)
        spec = self.preprocessing[modality]
        extra = (self.tokenizer,) if spec["kind"] == "text" else ()
        return PREPARE[spec["kind"]](spec, value, *extra)

    def encode(self, modality: str, value: Any, mask: Any = None) -> Tensor:
        """float32[n, E] from preprocessed rows, with gradients.

        value: an array or dict of arrays [n, ...]; with mask, bool[n, N], several items a study [n, N, ...], which
        become one as the encoder was trained; a study whose mask is false throughout becomes zero.
        """
        self._check(modality)
        value = self._tensors(value)
        if mask is None:
            value = _map(value, lambda x: x[:, None])
            mask = torch.ones(_first(value).shape[:2], dtype=torch.bool)
        mask = torch.as_tensor(mask, device=_first(value).device)
        x = self._features(modality, _map(value, lambda x: x.flatten(0, 1))).pooled
        project = self.heads[modality] if modality in self.heads else nn.Identity()
        if modality in self.pooling:
            (pool,) = self.pooling[modality].values()
            x = x.unflatten(0, tuple(mask.shape)).masked_fill(~mask[..., None], 0)
            x = project(pool(x, mask)).float() * mask.any(1, keepdim=True)
        else:
            x = masked_mean(project(x).float().unflatten(0, tuple(mask.shape)), mask)
        head = self.config["modalities"][modality]["head"]
        return unit(x) if head and head["normalise"] else x

    def features(self, modality: str, value: Any) -> Features:
        """Tokens and pooled features of preprocessed rows [n, ...], before pooling of items and projection."""
        self._check(modality)
        return self._features(modality, self._tensors(value))

    def _features(self, modality: str, value: Any) -> Features:
        tower = self.towers[modality]
        return tower(**value) if isinstance(value, Mapping) else tower(value)

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Any], batch_size: int = 64) -> dict[str, Tensor]:
        """`{modality: float32[n, E]}` from raw inputs, `[E]` for a single one.

        inputs: `{modality: one input or a list of them}`. Images: paths, encoded bytes, Pillow images or uint8 arrays.
        ECGs: arrays [C, T] in mV. Lab values: `{name: number}` or arrays. Text: strings. Volumes: as `prepare_volume`.
        """
        out = {}
        for m, given in inputs.items():
            single = not isinstance(given, list | tuple)
            rows = [self.preprocess(m, v) for v in ([given] if single else given)]
            if not rows:
                raise ValueError(f"no inputs of modality {m!r}; give at least one")
            batches = [_stack(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
            found = torch.cat([self.encode(m, batch) for batch in batches])
            out[m] = found[0] if single else found
        return out

    def _check(self, modality: str) -> None:
        if modality not in self.towers:
            raise ValueError(f"this encoder has no modality {modality!r}; it has {', '.join(self.modalities)}")

    def _tensors(self, value: Any) -> Any:
        """On the model's device; floating numbers in its dtype."""
        like = next(self.parameters())

        def one(x):
            x = torch.as_tensor(np.array(x) if isinstance(x, np.ndarray) else x, device=like.device)
            return x.to(like.dtype) if x.is_floating_point() else x

        return _map(value, one)


def _map(value: Any, f) -> Any:
    return {k: f(v) for k, v in value.items()} if isinstance(value, Mapping) else f(value)


def _first(value: Any) -> Tensor:
    return next(iter(value.values())) if isinstance(value, Mapping) else value


def _stack(rows: list[Any]) -> Any:
    return {k: np.stack([r[k] for r in rows]) for k in rows[0]} if isinstance(rows[0], Mapping) else np.stack(rows)
