"""Pictures: decode, fit to a square, scale to zero mean and unit spread; random changes of geometry and intensity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from medjax.data.manifest import Modality
from medjax.data.readers.image import clean, decode, float_picture, read_encoded
from medjax.data.transforms.pictures import random_affine, random_crop, random_flip, random_tone
from medjax.errors import UserError


@dataclass(frozen=True)
class ImageConfig:
    """size: pixels a side. channels: 1 gray, 3 RGB. fit: "pad" keeps the whole picture and its aspect, "crop" the
    middle square, "stretch" neither. window: percentiles of the picture's pixels that become black and white, (1, 99)
    for instance; () keeps its range. mean, std: of pixel values in [0, 1].

    Augmentation, off by default. crop: a random rectangle of at least this share of the area fills the square, up to
    crop_aspect times wider or higher than the picture; 0 for none. shift (share of the side), zoom (share of the size),
    contrast (share of the spread), rotate and shear (degrees) and brightness (of a range of 1) are uniform within +-
    the value. gamma, blur (pixels) and noise: see `random_tone`. flip, flip_vertical: probabilities. Mirrored left to
    right a chest has its heart on the wrong side, a brain or a breast is the other one, and what the report says ("left
    pleural effusion") becomes wrong: flip only what has no sides, such as histology or skin.
    """

    kind: Literal["image"] = "image"
    size: int = 224
    channels: int = 1
    fit: Literal["pad", "crop", "stretch"] = "pad"
    window: tuple[float, ...] = ()
    mean: float = 0.5
    std: float = 0.25
    crop: float = 0.0
    crop_aspect: float = 4 / 3
    shift: float = 0.0
    zoom: float = 0.0
    rotate: float = 0.0
    shear: float = 0.0
    flip: float = 0.0
    flip_vertical: float = 0.0
    gamma: float = 0.0
    blur: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __post_init__(self):
        w = self.window
        if w and (len(w) != 2 or not 0 <= w[0] < w[1] <= 100):
            raise UserError(f"image window must be two rising percentiles, such as (1, 99), or (), got {w}")
        if not 0 <= self.crop <= 1 or self.crop_aspect < 1:
            raise UserError(
                f"image crop is a share of the area and crop_aspect at least 1, got {self.crop} and {self.crop_aspect}"
            )
        if not -90 < self.shear < 90:
            raise UserError(f"image shear must be under 90 degrees, got {self.shear}")


@dataclass(frozen=True)
class ImageTransform:
    """uint8[n] encoded bytes, or uint8[H, W] or [H, W, 3] or uint16[H, W] pixels -> float32[size, size, channels].

    Black (0) becomes `-mean / std` and white (255, or 65535 of 16 bits) `(1 - mean) / std`. 16-bit gray is not rounded
    to 8 bits. Nothing is clipped but beyond `window` and in augmentation, to black and white.
    """

    config: ImageConfig
    kind: ClassVar[str] = "image"

    @classmethod
    def create(cls, config: ImageConfig, schema: Modality, directory: Path) -> "ImageTransform":
        """Needs nothing of the data set."""
        return cls(config)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """uint8[size, size] or [size, size, 3], or of 16-bit gray float32[size, size] from 0 to 255; of the whole
        picture's size where random crops are cut from it."""
        c = self.config
        picture = decode(raw, c.channels, precise=True) if raw.ndim == 1 else _picture(raw, c.channels)
        if c.window:
            picture = windowed(picture, c.window)
        return np.asarray(picture if c.crop else fit(picture, c.size, c.fit))

    def finish(self, prepared: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """float32[size, size, channels]."""
        c, top = self.config, 255.0
        if c.crop:
            picture = Image.fromarray(prepared)
            prepared = np.asarray(
                fit(picture, c.size, c.fit) if rng is None else random_crop(picture, c.size, c.crop, c.crop_aspect, rng)
            )
        if rng is not None:
            prepared = self._moved(prepared, rng)
            if c.gamma or c.blur or c.brightness or c.noise:
                prepared, top = random_tone(prepared.astype(np.float32) / np.float32(255), c, rng), 1.0
        # Normalisation and a change of contrast are one multiplication and one addition.
        gain, offset = 1 / (top * c.std), -c.mean / c.std
        if rng is not None and c.contrast:
            factor = 1 + rng.uniform(-c.contrast, c.contrast)
            gain, offset = gain * factor, offset * factor + rng.uniform(-c.contrast, c.contrast)
        pixels = prepared.astype(np.float32)
        pixels *= np.float32(gain)
        pixels += np.float32(offset)
        gray = pixels.ndim == 2 and c.channels == 3
        return np.repeat(pixels[..., None], 3, 2) if gray else pixels.reshape(c.size, c.size, c.channels)

    def _moved(self, prepared: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        c = self.config
        if c.shift or c.zoom or c.rotate or c.shear:
            prepared = np.asarray(random_affine(Image.fromarray(prepared), c, rng))
        return random_flip(prepared, c, rng)

    def empty(self) -> np.ndarray:
        """float32[size, size, channels] of zeros."""
        return np.zeros((self.config.size, self.config.size, self.config.channels), np.float32)

    def raw(self, value: Any) -> np.ndarray:
        """From a path, encoded bytes, a Pillow image, or uint8 `[H, W]` or `[H, W, 3]` or uint16 `[H, W]` pixels."""
        if isinstance(value, str | Path):
            return read_encoded(value)
        if isinstance(value, bytes):
            return clean(value)
        if isinstance(value, Image.Image):
            deep = value.mode.startswith("I")
            value = np.asarray(value if deep else value.convert("RGB" if self.config.channels == 3 else "L"))
            if deep and value.min() >= 0 and value.max() <= 65535:
                value = value.astype(np.uint16)
        value = np.asarray(value)
        gray = value.ndim == 2 and value.dtype in (np.uint8, np.uint16)
        if not gray and not (value.ndim == 3 and value.shape[2] == 3 and value.dtype == np.uint8):
            raise UserError(
                "an image must be a path or uint8[H, W] or uint8[H, W, 3] or uint16[H, W], got "
                f"{value.dtype}{list(value.shape)}"
            )
        return value

    def spec(self) -> dict[str, Any]:
        """Size, fit and normalisation."""
        c = self.config
        names = ("size", "channels", "fit", "mean", "std")
        window = {"window": list(c.window)} if c.window else {}
        return {"kind": "image", **{k: getattr(c, k) for k in names}, "resample": "bilinear", **window}


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


def windowed(picture: Image.Image, window: tuple[float, ...]) -> Image.Image:
    """The picture with these two percentiles of its pixels at 0 and 255, linear between and clipped beyond; 8-bit
    pictures are rounded to 8 bits again."""
    pixels = np.asarray(picture)
    low, high = np.percentile(pixels, window)
    out = (pixels - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    out = out.clip(0, 255)
    return Image.fromarray(out if picture.mode == "F" else np.rint(out).astype(np.uint8))


def _picture(pixels: np.ndarray, channels: int) -> Image.Image:
    if pixels.dtype == np.uint16:
        return float_picture(pixels)
    return Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
