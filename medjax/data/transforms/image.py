"""Pictures: decode, fit to a square, scale to zero mean and unit spread; small shifts and contrast changes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from medjax.data.manifest import Modality
from medjax.data.readers.image import decode, encode_png, read_encoded
from medjax.errors import UserError


@dataclass(frozen=True)
class ImageConfig:
    """size: pixels a side. channels: 1 gray, 3 RGB. fit: "pad" keeps the whole picture and its aspect, "crop" the
    middle square, "stretch" neither. mean, std: of pixel values in [0, 1]. Augmentation: shift (share of the side),
    zoom (share of the size) and contrast (share of the spread), each uniform within +- the value. No flips: a flipped
    chest has its heart on the wrong side.
    """

    kind: Literal["image"] = "image"
    size: int = 224
    channels: int = 1
    fit: Literal["pad", "crop", "stretch"] = "pad"
    mean: float = 0.5
    std: float = 0.25
    shift: float = 0.0
    zoom: float = 0.0
    contrast: float = 0.0


@dataclass(frozen=True)
class ImageTransform:
    """uint8[n] encoded bytes, or uint8[H, W] or [H, W, 3] pixels -> float32[size, size, channels]."""

    config: ImageConfig
    kind: ClassVar[str] = "image"

    @classmethod
    def create(cls, config: ImageConfig, schema: Modality, directory: Path) -> "ImageTransform":
        """Needs nothing of the data set."""
        return cls(config)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """uint8[size, size] or [size, size, 3]."""
        c = self.config
        picture = decode(raw, c.channels) if raw.ndim == 1 else _picture(raw, c.channels)
        return np.asarray(fit(picture, c.size, c.fit))

    def finish(self, prepared: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """float32[size, size, channels]."""
        c = self.config
        # Normalisation and a change of contrast are one multiplication and one addition.
        gain, offset = 1 / (255.0 * c.std), -c.mean / c.std
        if rng is not None and (c.shift or c.zoom):
            prepared = np.asarray(_move(Image.fromarray(prepared), c, rng))
        if rng is not None and c.contrast:
            factor = 1 + rng.uniform(-c.contrast, c.contrast)
            gain, offset = gain * factor, offset * factor + rng.uniform(-c.contrast, c.contrast)
        pixels = prepared.astype(np.float32)
        pixels *= np.float32(gain)
        pixels += np.float32(offset)
        return pixels.reshape(c.size, c.size, c.channels)

    def empty(self) -> np.ndarray:
        """float32[size, size, channels] of zeros."""
        return np.zeros((self.config.size, self.config.size, self.config.channels), np.float32)

    def raw(self, value: Any) -> np.ndarray:
        """From a path, encoded bytes, a Pillow image or a uint8 array `[H, W]` or `[H, W, 3]`."""
        if isinstance(value, str | Path):
            return read_encoded(value)
        if isinstance(value, bytes):
            return np.frombuffer(value, np.uint8)
        if isinstance(value, Image.Image):
            return encode_png(np.asarray(value.convert("RGB" if self.config.channels == 3 else "L")))
        value = np.asarray(value)
        if value.dtype != np.uint8 or not (value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)):
            raise UserError(
                f"an image must be a path or uint8[H, W] or uint8[H, W, 3], got {value.dtype}{list(value.shape)}"
            )
        return value

    def spec(self) -> dict[str, Any]:
        """Size, fit and normalisation."""
        c = self.config
        names = ("size", "channels", "fit", "mean", "std")
        return {"kind": "image", **{k: getattr(c, k) for k in names}, "resample": "bilinear"}


def fit(picture: Image.Image, size: int, how: str) -> Image.Image:
    """A square of `size` pixels, by bilinear resampling with antialiasing; padding is black."""
    if how == "stretch":
        return picture.resize((size, size), Image.Resampling.BILINEAR)
    width, height = picture.size
    scale = size / (max(width, height) if how == "pad" else min(width, height))
    new = max(1, round(width * scale)), max(1, round(height * scale))
    picture = picture.resize(new, Image.Resampling.BILINEAR)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    return picture.crop((left, top, left + size, top + size))  # beyond the picture is zero


def _picture(pixels: np.ndarray, channels: int) -> Image.Image:
    return Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")


def _move(picture: Image.Image, c: ImageConfig, rng: np.random.Generator) -> Image.Image:
    """Zooms about the middle and shifts."""
    zoom = 1 + rng.uniform(-c.zoom, c.zoom)
    dx, dy = rng.uniform(-c.shift, c.shift, 2) * c.size
    middle = c.size / 2
    affine = (1 / zoom, 0.0, middle - (middle + dx) / zoom, 0.0, 1 / zoom, middle - (middle + dy) / zoom)
    return picture.transform(picture.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
