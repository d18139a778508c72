"""PNG, JPEG and other files that Pillow reads, kept encoded in records and decoded to gray or RGB."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from medjax.errors import UserError

Image.MAX_IMAGE_PIXELS = 2**28  # a header may claim any size; 268 million pixels is more than any radiograph


def read_encoded(path: str | Path) -> np.ndarray:
    """uint8[n]: the bytes of an image file that decodes.

    Raises:
      UserError: the file is missing, empty, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"image {path} does not exist")
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        decode(raw)
    except UserError as error:
        raise UserError(f"image {path}: {error}") from None
    return raw


def encode_png(pixels: np.ndarray) -> np.ndarray:
    """uint8[n]: a uint8 image `[H, W]` or `[H, W, 3]` as PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return np.frombuffer(out.getvalue(), np.uint8)


def decode(raw: np.ndarray, channels: int = 1) -> Image.Image:
    """The picture as 8-bit gray (channels=1) or RGB (3). 16-bit gray is scaled by 1/257; transparency is dropped.

    Raises:
      UserError: the bytes are no image.
    """
    try:
        image = Image.open(io.BytesIO(raw.tobytes()))
        image.load()
    except Exception as error:  # Pillow raises many types for damaged files
        raise UserError(f"cannot be read as an image ({error}); replace or remove it") from None
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        image = Image.fromarray((np.asarray(image, np.uint32) // 257).clip(0, 255).astype(np.uint8))
    return image.convert("L" if channels == 1 else "RGB")
