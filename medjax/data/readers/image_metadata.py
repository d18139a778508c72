"""PNG and JPEG files without their metadata: what decoding needs is copied byte by byte, all else is left out."""

import re
import struct
import zlib
from collections.abc import Iterator

from medjax.errors import UserError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

# Chunks that stay, and the most bytes that each may have. Besides the critical ones only numbers of colour and depth.
_PNG_KEPT = {b"PLTE": 768, b"tRNS": 256, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"sBIT": 4}
# What changes no pixel and takes a decoder no time.
_PNG_PLAIN = frozenset({b"IHDR", b"IDAT", b"IEND", b"tEXt", b"tIME", b"pHYs", b"bKGD", *_PNG_KEPT})
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PIECE = 2**20
_DEFLATE_RATIO = 1040  # no deflate stream grows more than 1032 times (RFC 1951: 258 bytes for 2 bits)

# Frames, tables, restart intervals and scans: all that a decoder reads, but for the two application segments below.
_JPEG_KEPT = {*range(0xC0, 0xC8), *range(0xC9, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD}
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_ARITHMETIC = {*range(0xC9, 0xD0)}
_JPEG_TURNS = (b"Exif\0\0", b"MPF\0")  # EXIF may turn a picture, and with an index of several it is another format
_BLOCK_PIXELS_A_BYTE = 512  # a Huffman-coded block of 64 pixels has at least one bit
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def strip(data: bytes, verified: bool = False) -> tuple[bytes, bytes]:
    """A PNG or JPEG file that decodes to the same pixels, and the EXIF block that it had (empty if none), which may
    say that the picture is to be turned. Left out are EXIF, XMP, comments, text, times, colour profiles, thumbnails,
    animation frames and whatever follows the end marker. Data of another format comes back as it is.

    verified: the file has been through this before and is the same, so that a PNG need not be inflated to be counted.

    Raises:
      UserError: the file is torn, its checksums are wrong, or it claims more pixels than its bytes can hold.
    """
    if data.startswith(PNG_MAGIC):
        return _strip_png(data, verified)
    return _strip_jpeg(data) if data.startswith(JPEG_MAGIC) else (data, b"")


def is_plain(data: bytes) -> bool:
    """Whether a PNG or JPEG file that went through `strip` before decodes upright and to the same pixels as it is."""
    if data.startswith(JPEG_MAGIC):
        return not any(mark in data for mark in _JPEG_TURNS)
    if not data.startswith(PNG_MAGIC):
        return False
    at, kind = len(PNG_MAGIC), b""
    while kind != b"IEND" and at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind not in _PNG_PLAIN:
            return False
        at += 12 + size
    return kind == b"IEND"


def _strip_png(data: bytes, verified: bool) -> tuple[bytes, bytes]:
    out, exif, claimed, pixels = [PNG_MAGIC], b"", 0, []
    for kind, content, whole in _chunks(data):
        if kind == b"IHDR":
            claimed = _png_bytes(content)
        elif kind == b"IDAT":
            pixels.append(content)
        elif kind != b"IEND" and len(content) > _PNG_KEPT.get(kind, -1):
            if not kind[0] & 0x20:  # a capital: decoders must know it, and we do not
                raise UserError(f"has the unknown critical PNG chunk {kind!r}; convert it to a plain PNG")
            exif = content if kind == b"eXIf" else exif
            continue
        out.append(whole)
    if not verified:
        _check_pixels(claimed, b"".join(pixels))
    return b"".join(out), exif


def _check_pixels(claimed: int, compressed: bytes) -> None:
    """Inflates in pieces: decoders leave out rows that are missing, and say nothing."""
    inflate, found, rest = zlib.decompressobj(), 0, compressed
    try:
        while claimed <= _DEFLATE_RATIO * len(compressed) and found < claimed and not inflate.eof:
            piece = inflate.decompress(rest, _PIECE)
            found, rest = found + len(piece), inflate.unconsumed_tail
            if not piece and not rest:
                break
    except zlib.error as error:
        raise UserError(f"has damaged pixels ({error}); replace it") from None
    if found < claimed:
        raise UserError(f"claims {claimed} bytes of pixels and holds {found}; it is truncated, replace it")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Type, content and whole of each chunk from IHDR to IEND."""
    at = len(PNG_MAGIC)
    while True:
        if at + 12 > len(data):
            raise UserError("is truncated: the PNG has no end chunk; replace it")
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            raise UserError(f"is truncated in its chunk {kind!r}; replace it")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise UserError(f"has a wrong checksum in its chunk {kind!r}; it is damaged, replace it")
        if (at == len(PNG_MAGIC)) != (kind == b"IHDR"):
            raise UserError("is no PNG: its first chunk, and no other, must be IHDR")
        yield kind, data[at + 8 : end - 4], data[at:end]
        if kind == b"IEND":
            return
        at = end


def _png_bytes(header: bytes) -> int:
    """What the pixels take, uncompressed, as the header claims; interlaced ones take no less."""
    if len(header) != 13:
        raise UserError("is no PNG: its header is not 13 bytes long")
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    return height * -(-width * depth * _PNG_CHANNELS.get(colour, 1) // 8)


def _strip_jpeg(data: bytes) -> tuple[bytes, bytes]:
    out, exif = [b"\xff\xd8"], b""
    for marker, content in _segments(data):
        if marker == 0xE0 and content[2:7] == b"JFIF\0" and len(content) >= 16:
            content = b"\x00\x10" + content[2:14] + b"\0\0"  # without the thumbnail
        elif marker == 0xEE and content[2:7] == b"Adobe" and len(content) >= 14:
            content = b"\x00\x0e" + content[2:14]  # says whether colours are YCbCr or RGB, CMYK or YCCK
        elif marker not in _JPEG_KEPT:
            if marker == 0xE1 and content[2:8] == b"Exif\0\0":
                exif = exif or content[8:]
            continue
        elif marker in _JPEG_FRAMES:
            _check_frame(marker, content, len(data))
        out.append(bytes((0xFF, marker)) + content)
    return b"".join([*out, b"\xff\xd9"]), exif


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content (from the length on; of a scan with its coded pixels) of each segment up to the end marker."""
    at = 2
    while True:
        if (found := _NEXT_MARKER.match(data, at)) is None:
            raise UserError("is truncated or damaged: the JPEG has no marker where one must be; replace it")
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            return
        if marker in (0x01, 0xD8):  # markers without content that may not stand here
            raise UserError("is no JPEG: it starts a second time before its end; convert it again")
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end < at + 2 or end > len(data):
            raise UserError(f"is truncated in its JPEG segment {marker:#x}; replace it")
        if marker == 0xDA:
            if (following := _NEXT_MARKER.search(data, end)) is None:
                raise UserError("is truncated: the JPEG has no end marker; replace it")
            end = following.start()
        yield marker, data[at:end]
        at = end


def _check_frame(marker: int, content: bytes, size: int) -> None:
    if len(content) < 8:
        raise UserError("has a JPEG frame header that is too short; replace it")
    height, width = struct.unpack_from(">HH", content, 3)
    if marker not in _JPEG_ARITHMETIC and height * width > _BLOCK_PIXELS_A_BYTE * size:
        raise UserError(f"claims {width} x {height} pixels in {size} bytes; it is damaged, replace it")
