"""PNG, JPEG, TIFF, BMP and WebP pictures as PNG or JPEG bytes without metadata, and those decoded to gray or RGB."""

import io
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from medjax.data.readers.image_metadata import is_plain, strip
from medjax.errors import UserError

MAX_PIXELS = 2**28  # a header may claim any size; 268 million pixels is more than any radiograph
MAX_BYTES = 2**30
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_PLUGINS = (PngImagePlugin, JpegImagePlugin, TiffImagePlugin, BmpImagePlugin, WebPImagePlugin)
_FORMATS = tuple(plugin.__name__.removeprefix("PIL.").removesuffix("ImagePlugin").upper() for plugin in _PLUGINS)
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 274, 258, 262
_WHITE_IS_ZERO = 0
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)  # by EXIF orientation


def read_encoded(
    path: str | Path, page: int | None = None, verified: bool = False, only_decoded: bool = False
) -> np.ndarray:
    """uint8[n]: a picture as PNG or JPEG bytes that decode to its pixels, without metadata.

    An upright PNG or JPEG keeps its coded pixels byte by byte. A turned one (EXIF orientation) and the other formats
    become PNG with the same pixels, upright, 8 or 16 bits. 12-bit gray is stretched to 16 bits, and where 0 is white
    it is inverted, so that 0 is black in every item. Transparency, ICC profile and gamma change nothing.

    page: of a TIFF with several; without it such a file is refused. verified: the file is known to be one that was read
    before, and pixels that are kept as they are need not be decoded to see that they can be. only_decoded: of such a
    file metadata may stay where no decoder looks at them, since the caller decodes the picture and keeps nothing else.

    Raises:
      UserError: the file is missing, empty, torn, not an image, larger than `MAX_PIXELS` or `MAX_BYTES`, has several
        pages, or pixels without a known range (floating point, or 32 bits beyond 0..65535).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"image {path} does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"image {path} has {path.stat().st_size} bytes; the limit is {MAX_BYTES}, make it smaller")
    try:
        data = path.read_bytes()
        if verified and only_decoded and page is None and is_plain(data):
            return np.frombuffer(data, np.uint8)
        return clean(data, page, verified)
    except OSError as error:
        raise UserError(f"image {path} cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"image {path}: {error}") from None


def clean(data: bytes, page: int | None = None, verified: bool = False) -> np.ndarray:
    """As `read_encoded`, of bytes in memory."""
    try:
        stripped, exif = strip(data, verified)
    except UserError as error:
        raise UserError(f"cannot be read as an image: it {error}") from None
    picture = _open(stripped)
    _select(picture, page)
    turn = _TURNS.get(_orientation(exif or picture.info.get("exif", b"")))
    kept = picture.format in ("PNG", "JPEG") and turn is None
    if not (kept and verified):
        _load(picture)
    if kept:
        return np.frombuffer(stripped, np.uint8)
    pixels = _pixels(picture)
    return encode_png(pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn)))


def encode_png(pixels: np.ndarray) -> np.ndarray:
    """uint8[n]: a uint8 image `[H, W]` or `[H, W, 3]`, or a uint16 image `[H, W]`, as PNG."""
    out = io.BytesIO()
    # The usual level 6 takes ten times as long for 16-bit pictures, whose low bits are noise, and saves nothing.
    level = 2 if pixels.dtype == np.uint16 else 6
    Image.fromarray(pixels).save(out, "PNG", compress_level=level)
    return np.frombuffer(out.getvalue(), np.uint8)


def decode(raw: np.ndarray, channels: int = 1, precise: bool = False) -> Image.Image:
    """The picture as 8-bit gray (channels=1) or RGB (3); transparency is dropped, and so are the lower 8 bits of 16-bit
    colour. 16-bit gray is divided by 257 and cut to 8 bits; if precise, it stays in float32 from 0 to 255 (mode F),
    whatever `channels` says.

    Raises:
      UserError: the bytes are no image.
    """
    picture = _open(raw.tobytes())
    _load(picture)
    if picture.mode in _DEEP:
        gray = _gray16(picture)
        if precise:
            return float_picture(gray)
        picture = Image.fromarray((gray // 257).astype(np.uint8))
    return picture.convert("L" if channels == 1 else "RGB")


def float_picture(gray: np.ndarray) -> Image.Image:
    """uint16[H, W] as float32 from 0 to 255 (mode F)."""
    return Image.fromarray(gray.astype(np.float32) / np.float32(257))


def _open(data: bytes) -> Image.Image:
    """Reads the header alone."""
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        pixels = picture.width * picture.height
    except Exception as error:  # Pillow raises many types for damaged files
        raise _unreadable(error) from None
    if not 0 < pixels <= MAX_PIXELS:
        raise UserError(
            f"cannot be read as an image: it claims {picture.width} x {picture.height} pixels, the limit is "
            f"{MAX_PIXELS}; make it smaller"
        )
    return picture


def _load(picture: Image.Image) -> None:
    try:
        picture.load()
    except Exception as error:  # Pillow raises many types for damaged files
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"cannot be read as an image ({reason[:200]}); replace or remove it")


def _select(picture: Image.Image, page: int | None) -> None:
    try:
        pages = getattr(picture, "n_frames", 1) if picture.format in ("TIFF", "WEBP") else 1
        if page is None and pages == 1:
            return
        if page is None or not 0 <= page < pages:
            raise UserError(f"has {pages} pages; choose one with the reader option page=0..{pages - 1}, or split it")
        picture.seek(page)
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(error) from None


def _orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 (upright) where there is none or the block cannot be read; TIFF is turned by Pillow."""
    block = Image.Exif()
    try:
        block.load(exif)
        return int(block.get(_ORIENTATION, 1))
    except Exception:  # Pillow raises many types for damaged blocks, which tell nothing
        return 1


def _pixels(picture: Image.Image) -> np.ndarray:
    """uint8[H, W], uint8[H, W, 3] or uint16[H, W]."""
    if picture.mode in _DEEP:
        return _gray16(picture)
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA", "La") else "RGB"))


def _gray16(picture: Image.Image) -> np.ndarray:
    """uint16[H, W] of a picture in one of the deep modes; 12 bits fill the range, white is the largest value."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"has {'floating-point pixels' if picture.mode == 'F' else 'pixels beyond 0..65535'}, whose range is "
            "unknown; convert it to 16 bits"
        )
    values = values.astype(np.uint16)
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_BITS_PER_SAMPLE) == (12,):
        values = values << 4 | values >> 8
    return 65535 - values if tags.get(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO else values
