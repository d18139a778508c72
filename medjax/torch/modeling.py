"""medjax encoders in PyTorch: architecture, preprocessing and loading of an export, in one file of its own.

    encoder = Encoder.from_pretrained("EXPORT")
    encoder.embed({"image": ["a.png", "b.png"], "text": ["No effusion."]})   # {modality: float32[n, E]}

Needs torch, numpy and safetensors; Pillow where pictures are read, tokenizers for text. Shapes: b rows, n studies,
N items a study, L tokens, D width, E embedding, C channels or leads, T samples.
"""

import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from torch import Tensor, nn

FORMAT = "medjax-torch-1"


class Attention(nn.Module):
    """Multi-head self-attention on [b, L, D]; keep: bool[b, L], false for padding, or None."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        mask = None if keep is None else keep[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """Attention and MLP, each with a residual; norms before them (ViT) or after the sum (BERT)."""

    def __init__(self, c: Mapping[str, Any], norm_first: bool, epsilon: float):
        super().__init__()
        self.norm_first, width = norm_first, c["width"]
        self.attention, self.mlp = Attention(width, c["heads"]), Mlp(width, int(width * c["mlp_ratio"]))
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.dropout = nn.Dropout(c["dropout"])

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self.attention(self.norm_attention(x), keep))
            return x + self.dropout(self.mlp(self.norm_mlp(x)))
        x = self.norm_attention(x + self.dropout(self.attention(x, keep)))
        return self.norm_mlp(x + self.dropout(self.mlp(x)))


class VisionTransformer(nn.Module):
    """Pictures [b, H, W, C] (name "vit") or ECGs [b, C, T] (name "ecg_vit") -> [b, D] (arXiv 2010.11929)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.name, self.patch, self.pool = c["name"], c["patch"], c["pool"]
        self.patch_embed = nn.Linear(c["patch_dim"], c["width"])
        self.positions = nn.Parameter(torch.zeros(1, c["patches"], c["width"]))
        if self.pool == "cls":
            self.cls = nn.Parameter(torch.zeros(1, 1, c["width"]))
        self.blocks = nn.ModuleList(Block(c, True, 1e-6) for _ in range(c["depth"]))
        self.norm = nn.LayerNorm(c["width"], 1e-6)

    def patchify(self, x: Tensor) -> Tensor:
        """[b, L, P]: within a patch of a picture rows, columns, channels; in a window of an ECG leads, then time."""
        if self.name == "vit":
            rows = x.unflatten(1, (-1, self.patch)).unflatten(3, (-1, self.patch))  # b, h, p, w, q, C
            return rows.transpose(2, 3).flatten(3).flatten(1, 2)
        return x.unflatten(2, (-1, self.patch)).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(self.patchify(x)) + self.positions
        if self.pool == "cls":
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x[:, 0] if self.pool == "cls" else x.mean(1)


class Bert(nn.Module):
    """`tokens` int[b, L], padded on the right, and `length` int[b] -> [b, D] (arXiv 1810.04805)."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.pool = c["pool"]
        self.words = nn.Embedding(c["vocab_size"], c["width"])
        self.positions = nn.Embedding(c["positions"], c["width"])
        self.norm, self.dropout = nn.LayerNorm(c["width"], 1e-12), nn.Dropout(c["dropout"])
        self.blocks = nn.ModuleList(Block(c, False, 1e-12) for _ in range(c["depth"]))

    def forward(self, value: Mapping[str, Tensor]) -> Tensor:
        tokens, length = value["tokens"], value["length"]
        place = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.norm(self.words(tokens) + self.positions(place)))
        real = place[None] < length[:, None]
        keep = place[None] < length.clamp(min=1)[:, None]  # attention over nothing is not a number
        for block in self.blocks:
            x = block(x, keep)
        return x[:, 0] if self.pool == "cls" else masked_mean(x, real)


class TabularMlp(nn.Module):
    """`value` and `observed` [b, F] -> [b, D]."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        widths = (c["inputs"], *c["hidden"])
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.dropout = nn.Dropout(c["dropout"])

    def forward(self, value: Mapping[str, Tensor]) -> Tensor:
        x = torch.cat([value["value"] * value["observed"], value["observed"]], dim=1)
        for layer in self.layers:
            x = self.dropout(F.gelu(layer(x)))
        return x


class Head(nn.Module):
    """The projection [b, D] -> [b, E]."""

    def __init__(self, c: Mapping[str, Any], width: int, embed_dim: int):
        super().__init__()
        self.hidden = nn.Linear(width, c["hidden"]) if c["hidden"] else None
        self.out = nn.Linear(c["hidden"] or width, embed_dim, bias=c["centre"])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x if self.hidden is None else F.gelu(self.hidden(x)))


TOWERS = {"vit": VisionTransformer, "ecg_vit": VisionTransformer, "bert": Bert, "mlp": TabularMlp}


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """[b, L, D], bool[b, L] -> [b, D]: the mean where the mask is true; zero where it is nowhere."""
    weight = mask[..., None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def unit(x: Tensor) -> Tensor:
    """float32 of length 1 along the last axis; a zero vector stays zero."""
    x = x.float()
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-12)


def prepare_image(spec: Mapping[str, Any], value: Any) -> np.ndarray:
    """A path, encoded bytes, a Pillow image or uint8[H, W] or [H, W, 3] -> float32[size, size, channels]."""
    from PIL import Image

    mode = "L" if spec["channels"] == 1 else "RGB"
    if isinstance(value, str | Path | bytes):
        picture = Image.open(io.BytesIO(value) if isinstance(value, bytes) else value)
        if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
            deep = np.asarray(picture, np.uint32) // 257
            picture = Image.fromarray(deep.clip(0, 255).astype(np.uint8))
    elif isinstance(value, Image.Image):
        picture = value
    else:
        pixels = np.asarray(value)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise ValueError(f"an image must be a path or uint8[H, W] or [H, W, 3], got {pixels.dtype}{pixels.shape}")
        picture = Image.fromarray(pixels)
    pixels = np.asarray(_fit(picture.convert(mode), spec["size"], spec["fit"])).astype(np.float32)
    pixels *= np.float32(1 / (255.0 * spec["std"]))
    pixels += np.float32(-spec["mean"] / spec["std"])
    return pixels.reshape(spec["size"], spec["size"], spec["channels"])


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


def prepare_ecg(spec: Mapping[str, Any], value: Any) -> np.ndarray:
    """[C, T] in mV, leads and rate as `spec` says -> float32[C, samples]: the middle, or padded with zeros."""
    signal, leads = np.asarray(value, np.float32), spec["leads"]
    if signal.ndim != 2 or len(signal) != len(leads) or not np.isfinite(signal).all():
        raise ValueError(f"an ECG must be finite numbers [{len(leads)}, T] ({', '.join(leads)}), got {signal.shape}")
    spare = signal.shape[1] - spec["samples"]
    if spare > 0:
        signal = signal[:, spare // 2 : spare // 2 + spec["samples"]]
    signal = np.pad(signal, ((0, 0), (0, max(0, -spare))))
    return np.clip(signal / np.float32(spec["scale"]), np.float32(-spec["clip"]), np.float32(spec["clip"]))


def prepare_labs(spec: Mapping[str, Any], value: Any) -> dict[str, np.ndarray]:
    """`{name: number}` or [F], NaN for missing -> standardised `value` and `observed`, float32[F] each."""
    names = spec["names"]
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in names]:
            raise ValueError(f"unknown lab values {', '.join(unknown)}; valid: {', '.join(names)}")
        value = [value.get(name, np.nan) for name in names]
    raw = np.asarray(value, np.float32)
    if raw.shape != (len(names),):
        raise ValueError(f"lab values must be [{len(names)}], got {raw.shape}")
    observed = ~np.isnan(raw)
    low, high, mean, std = (np.asarray(spec[k], np.float32) for k in ("low", "high", "mean", "std"))
    scaled = (np.clip(np.where(observed, raw, mean), low, high) - mean) / std
    return {"value": np.where(observed, scaled, 0.0).astype(np.float32), "observed": observed.astype(np.float32)}


def prepare_text(spec: Mapping[str, Any], value: Any, tokenizer) -> dict[str, np.ndarray]:
    """A string -> `tokens` int64[L], padded on the right, and their number `length` int64[]."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"text must be a string that is not empty, got {value!r}")
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec["length"])
    ids = tokenizer.encode(value).ids
    tokens = np.full(spec["length"], spec["pad_id"], np.int64)
    tokens[: len(ids)] = ids
    return {"tokens": tokens, "length": np.int64(len(ids))}


PREPARE = {"image": prepare_image, "ecg": prepare_ecg, "labs": prepare_labs, "text": prepare_text}


class Encoder(nn.Module):
    """The towers and heads of an export with its preprocessing.

    config: of config.json. preprocessing: `{modality: spec}` of preprocessing.json. tokenizer: of `tokenizers`, where
    a modality is text.
    """

    def __init__(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], tokenizer=None):
        super().__init__()
        self.config, self.preprocessing, self.tokenizer = config, preprocessing, tokenizer
        towers, heads = {}, {}
        for m, c in config["modalities"].items():
            towers[m] = TOWERS[c["tower"]["name"]](c["tower"])
            if c["head"]:
                heads[m] = Head(c["head"], c["width"], config["embed_dim"])
        self.towers, self.heads = nn.ModuleDict(towers), nn.ModuleDict(heads)
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

        value: an array or dict of arrays [n, ...]; with mask, bool[n, N], several items a study [n, N, ...], of which
        the mean of the projections counts; a study whose mask is false throughout becomes zero.
        """
        self._check(modality)
        value = self._tensors(value)
        if mask is None:
            value = _map(value, lambda x: x[:, None])
            mask = torch.ones(_first(value).shape[:2], dtype=torch.bool)
        mask = torch.as_tensor(mask, device=_first(value).device)
        x = self.towers[modality](_map(value, lambda x: x.flatten(0, 1)))
        head = self.config["modalities"][modality]["head"]
        x = self.heads[modality](x) if head else x
        mean = masked_mean(x.float().unflatten(0, tuple(mask.shape)), mask)
        return unit(mean) if head and head["normalise"] else mean

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Any], batch_size: int = 64) -> dict[str, Tensor]:
        """`{modality: float32[n, E]}` from raw inputs, `[E]` for a single one.

        inputs: `{modality: one input or a list of them}`. Images: paths, encoded bytes, Pillow images or uint8 arrays.
        ECGs: arrays [C, T] in mV. Lab values: `{name: number}` or arrays. Text: strings.
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
