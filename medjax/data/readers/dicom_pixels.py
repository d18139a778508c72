"""Stored pixel values of DICOM: what a header claims is compared with what the file holds before anything is decoded.

Transfer syntaxes and what decodes them: uncompressed, deflated and RLE need pydicom alone; JPEG baseline, and JPEG
extended of 8 bits, Pillow; JPEG 2000 and HTJ2K pylibjpeg-openjpeg, which medjax[readers] brings. JPEG-LS (also
lossless) needs pyjpegls, JPEG lossless python-gdcm or pylibjpeg-libjpeg, JPEG extended of 12 bits pylibjpeg-libjpeg,
which is under the GPL: these are used where installed, and medjax does not install them.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjax.data.readers.dicom_file import code, element, whole
from medjax.errors import UserError

MAX_FRAME_PIXELS = 2**28
MAX_PIXELS = 2**29  # of all frames that are decoded together
MAX_FRAMES = 2**16
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
PHOTOMETRIC = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, **dict.fromkeys(_COLOUR, 3)}
_RLE = "1.2.840.10008.1.2.5"
_LIBJPEG = "pylibjpeg and pylibjpeg-libjpeg"
_LOSSLESS = "python-gdcm, or pylibjpeg and pylibjpeg-libjpeg"
_OPENJPEG = "pylibjpeg and pylibjpeg-openjpeg (medjax[readers])"
# UID -> (name, the plugin preferred wherever several could decode it, the packages that bring one)
_SYNTAXES = {
    "1.2.840.10008.1.2": ("implicit little endian", "", ""),
    "1.2.840.10008.1.2.1": ("explicit little endian", "", ""),
    "1.2.840.10008.1.2.1.99": ("deflated", "", ""),
    "1.2.840.10008.1.2.2": ("explicit big endian", "", ""),
    _RLE: ("RLE", "pydicom", "pydicom"),
    "1.2.840.10008.1.2.4.50": ("JPEG baseline", "pillow", "pillow"),
    "1.2.840.10008.1.2.4.51": ("JPEG extended", "pillow", _LIBJPEG),
    "1.2.840.10008.1.2.4.57": ("JPEG lossless", "gdcm", _LOSSLESS),
    "1.2.840.10008.1.2.4.70": ("JPEG lossless", "gdcm", _LOSSLESS),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS lossless", "pyjpegls", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS near-lossless", "pyjpegls", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 lossless", "pylibjpeg", _OPENJPEG),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg", _OPENJPEG),
    "1.2.840.10008.1.2.4.201": ("HTJ2K lossless", "pylibjpeg", _OPENJPEG),
    "1.2.840.10008.1.2.4.202": ("HTJ2K lossless RPCL", "pylibjpeg", _OPENJPEG),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", "pylibjpeg", _OPENJPEG),
}
# JPEG 2000 can hold a picture of one value in a hundred bytes; a large one in so few is empty or an attack.
_ANY_PIXELS, _PIXELS_PER_BYTE = 2**20, 2**12
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"


@dataclass(frozen=True)
class Layout:
    """What the header says of the pixels. stored, high: bits that count and the position of the highest of them."""

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    syntax: str

    @property
    def range(self) -> tuple[int, int]:
        """The least and greatest stored value that the bits can hold."""
        return (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)


def layout(dataset: Any) -> Layout:
    """Reads and checks the header.

    Raises:
      UserError: there is no image, or one of a kind that is not read: bit masks, 32 bits, floats, video.
    """
    photometric = code(dataset, "PhotometricInterpretation")
    if not photometric and "Rows" not in dataset:
        raise UserError("it holds no image; leave it out")
    if photometric not in PHOTOMETRIC:
        raise UserError(f"its photometric interpretation is not one of {', '.join(PHOTOMETRIC)}; convert it")
    allocated = whole(dataset, "BitsAllocated", 1, 64)
    if allocated not in (8, 16):
        raise UserError(f"its pixels have {allocated} bits; images of 8 and 16 bits are read")
    stored = whole(dataset, "BitsStored", 1, allocated)
    out = Layout(
        rows=whole(dataset, "Rows", 1, 65535),
        columns=whole(dataset, "Columns", 1, 65535),
        frames=max(1, whole(dataset, "NumberOfFrames", 0, MAX_FRAMES, default=1)),  # some write 0 for 1
        samples=whole(dataset, "SamplesPerPixel", 1, 3, default=1),
        allocated=allocated,
        stored=stored,
        high=whole(dataset, "HighBit", stored - 1, allocated - 1, default=stored - 1),
        signed=bool(whole(dataset, "PixelRepresentation", 0, 1, default=0)),
        photometric=photometric,
        syntax=_syntax(dataset),
    )
    if out.samples != PHOTOMETRIC[photometric]:
        raise UserError(f"it has {out.samples} samples per pixel, {photometric} has {PHOTOMETRIC[photometric]}")
    if photometric.startswith("YBR") and allocated != 8:
        raise UserError(f"its pixels are {photometric} of {allocated} bits; 8 bits are read, convert it to RGB")
    if out.rows * out.columns > MAX_FRAME_PIXELS:
        raise UserError(
            f"it claims {out.rows} x {out.columns} pixels, the limit is {MAX_FRAME_PIXELS}; make it smaller"
        )
    return out


def _syntax(dataset: Any) -> str:
    uid = str(element(dataset.file_meta, "TransferSyntaxUID") or "")
    if uid and uid not in _SYNTAXES:
        raise UserError("its transfer syntax (video or private) is not read; convert it to JPEG 2000 or uncompressed")
    if not uid:
        implicit, little = dataset.original_encoding
        uid = "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")
    return uid


def decode(dataset: Any, layout: Layout, frames: Sequence[int]) -> Iterator[np.ndarray]:
    """The stored values of `frames`, in rising order: each [rows, columns] of 8 or 16 bits, signed as stored, or
    [rows, columns, 3], RGB. Bits above the highest stored one (overlays of old files) are cleared.

    Raises:
      UserError: the file holds less than its header claims, the claim is beyond the limit, or no installed package
        decodes its transfer syntax.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    pixels = layout.rows * layout.columns * layout.samples
    if pixels * len(frames) > MAX_PIXELS * layout.samples:
        raise UserError(f"its {len(frames)} frames have more than {MAX_PIXELS} pixels; split it")
    data = element(dataset, "PixelData")
    if not isinstance(data, bytes):
        raise UserError("it holds no pixel data of whole numbers; leave it out")
    dataset.file_meta.TransferSyntaxUID = UID(layout.syntax)
    decoder = get_decoder(layout.syntax)
    # Without indices one pass over the fragments serves all frames, which may be thousands.
    indices = None if len(frames) == layout.frames else list(frames)
    options = {"raw": False, "indices": indices, "correct_unused_bits": False}
    if decoder.is_encapsulated:
        options["decoding_plugin"] = _plugin(decoder, layout)
        _check_encapsulated(dataset, layout, data)
    else:
        bytes_needed = _native_bytes(layout)
        if len(data) < bytes_needed:
            raise UserError(f"it is cut short: its pixels need {bytes_needed} bytes, it has {len(data)}")
    try:
        for pixels, _ in itertools.islice(decoder.iter_array(dataset, **options), len(frames)):
            yield _stored(pixels, layout, decoder.is_encapsulated and layout.syntax != _RLE)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # plugins raise many types for damaged streams
        raise UserError(
            f"its pixels ({_SYNTAXES[layout.syntax][0]}) cannot be decoded ({type(error).__name__}); copy it again"
        ) from None


def _native_bytes(layout: Layout) -> int:
    samples = 2 if layout.photometric == "YBR_FULL_422" else layout.samples  # two pixels share their colour
    return layout.rows * layout.columns * layout.frames * samples * layout.allocated // 8


def _plugin(decoder: Any, layout: Layout) -> str:
    name, preferred, packages = _SYNTAXES[layout.syntax]
    available = [
        plugin
        for plugin in (preferred, *decoder.available_plugins)
        if plugin in decoder.available_plugins
        and not (plugin in ("pillow", "gdcm") and layout.syntax == _JPEG_EXTENDED and layout.stored > 8)
    ]
    if not available:
        raise UserError(f"it is compressed as {name}, which needs {packages}; install it or convert the file")
    return available[0]


def _check_encapsulated(dataset: Any, layout: Layout, data: bytes) -> None:
    """Compares every frame's own header with the data set's: decoders allocate what the frame claims."""
    from pydicom.encaps import generate_frames

    if layout.frames * 8 > len(data):
        raise UserError(f"it is cut short: it claims {layout.frames} frames in {len(data)} bytes")
    if layout.syntax == _RLE and _native_bytes(layout) > 64 * len(data):
        raise UserError(f"it is cut short: {len(data)} bytes of RLE cannot hold {layout.frames} frames of its size")
    found = 0
    for frame in generate_frames(data, number_of_frames=layout.frames, extended_offsets=_offsets(dataset)):
        found += 1
        if layout.syntax == _RLE:
            if len(frame) > 2 * (_native_bytes(layout) // layout.frames) + 2**16:
                raise UserError("its RLE frames are far longer than their pixels; copy it again or remove it")
        elif (claimed := _frame_size(frame)) != (layout.rows, layout.columns, layout.samples):
            raise UserError(
                f"its header claims {layout.rows} x {layout.columns} pixels of {layout.samples} samples, a frame "
                f"{' x '.join(map(str, claimed))}; copy it again or remove it"
            )
        elif layout.rows * layout.columns > max(_ANY_PIXELS, _PIXELS_PER_BYTE * len(frame)):
            raise UserError(f"{len(frame)} bytes hold no picture of {layout.rows} x {layout.columns} pixels; remove it")
        if found > layout.frames:
            break
    if found < layout.frames:
        raise UserError(f"it is cut short: it claims {layout.frames} frames and holds {found}")


def _offsets(dataset: Any) -> tuple[bytes, bytes] | None:
    table, lengths = element(dataset, "ExtendedOffsetTable"), element(dataset, "ExtendedOffsetTableLengths")
    return (table, lengths) if isinstance(table, bytes) and isinstance(lengths, bytes) else None


def _frame_size(frame: bytes) -> tuple[int, ...]:
    """(rows, columns, samples) of a JPEG, JPEG-LS or JPEG 2000 stream."""
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC and SIZ (ISO/IEC 15444-1 A.5.1)
        right, bottom, left, top, width, height = (int.from_bytes(frame[i : i + 4]) for i in range(8, 32, 4))
        tiles = -(-right // max(width, 1)) * -(-bottom // max(height, 1))
        if not 1 <= tiles <= 4096:
            raise UserError("its JPEG 2000 stream is cut into too many tiles; convert it")
        return bottom - top, right - left, int.from_bytes(frame[40:42])
    if frame[4:8] == b"jP  ":
        return _frame_size(_codestream(frame))
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        # Of the frame headers of JPEG (ISO/IEC 10918-1 B.2.2) those of the transfer syntaxes: not progressive ones,
        # whose many scans can keep a decoder busy for hours.
        if marker in (0xC0, 0xC1, 0xC3, 0xF7):
            return (*(int.from_bytes(frame[i : i + 2]) for i in (at + 5, at + 7)), frame[at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise UserError("a frame of its pixels has no JPEG header of its transfer syntax; copy it again or convert it")


def _codestream(frame: bytes) -> bytes:
    """What a JP2 file, which some put where DICOM has a bare codestream, wraps (ISO/IEC 15444-1 I.4)."""
    at = 0
    while at + 8 <= len(frame) and frame[at + 4 : at + 8] != b"jp2c":
        size = int.from_bytes(frame[at : at + 4])
        if size < 8:
            break
        at += size
    return frame[at + 8 :]


def _stored(pixels: np.ndarray, layout: Layout, aligned: bool) -> np.ndarray:
    """Sign-extends the stored bits; those of a JPEG stream are aligned whatever the header's high bit."""
    above = layout.allocated - (layout.stored if aligned else layout.high + 1)
    kind = np.dtype(f"{'i' if layout.signed else 'u'}{layout.allocated // 8}")
    pixels = pixels.astype(kind, copy=False)
    if layout.stored == layout.allocated:
        return pixels
    return (pixels << above) >> (layout.allocated - layout.stored)
