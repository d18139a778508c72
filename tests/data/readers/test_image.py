"""Pictures keep their pixels and lose everything else; files that are no pictures are named."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from medjax.data.readers import image
from medjax.data.readers.image import clean, decode, encode_png, read_encoded
from medjax.errors import UserError

SECRET = b"Ottilie Musterfrau"


def as_bytes(picture: Image.Image, kind: str = "PNG", **options) -> np.ndarray:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return np.frombuffer(out.getvalue(), np.uint8)


def test_png_round_trip_is_exact(rng):
    gray, colour = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((5, 7), (5, 7, 3)))
    np.testing.assert_array_equal(np.asarray(decode(encode_png(gray))), gray)
    np.testing.assert_array_equal(np.asarray(decode(encode_png(colour), channels=3)), colour)


def test_sixteen_bits_keep_their_order_and_fill_eight():
    pixels = np.array([[0, 257, 256 * 100, 65535]], np.uint16)
    got = np.asarray(decode(as_bytes(Image.fromarray(pixels))))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, pixels // 257)
    assert got[0, 0] == 0 and got[0, -1] == 255


def test_colour_and_gray_turn_into_each_other(rng):
    gray = rng.integers(0, 256, (4, 4), dtype=np.uint8)
    three = np.asarray(decode(encode_png(gray), channels=3))
    assert all(np.array_equal(three[..., c], gray) for c in range(3))
    back = np.asarray(decode(encode_png(three)))
    np.testing.assert_array_equal(back, gray)


def test_transparency_is_dropped(rng):
    rgba = rng.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    got = np.asarray(decode(as_bytes(Image.fromarray(rgba)), channels=3))
    np.testing.assert_array_equal(got, rgba[..., :3])


def test_a_file_is_kept_as_it_is(tmp_path, rng):
    raw = as_bytes(Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)), "JPEG")
    (tmp_path / "a.jpg").write_bytes(raw.tobytes())
    np.testing.assert_array_equal(read_encoded(tmp_path / "a.jpg"), raw)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.png does not exist"):
        read_encoded(tmp_path / "nothing.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_an_unreadable_file_is_named_in_one_line(tmp_path, rng, kind, damage):
    raw = as_bytes(Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)), kind).tobytes()
    data = {"empty": b"", "text": b"no picture", "truncated": raw[: len(raw) // 2]}[damage]
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(UserError, match=r"image .*bad: cannot be read as an image") as caught:
        read_encoded(tmp_path / "bad")
    assert "\n" not in str(caught.value)


def opened(raw) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(bytes(raw))))


def with_metadata(picture: Image.Image, kind: str, orientation: int = 1) -> bytes:
    """A file that names a person in every place that its format has."""
    exif = Image.Exif()
    exif[0x010E], exif[0x0132], exif[0x0112] = SECRET.decode(), "2031:05:06 07:08:09", orientation
    options = dict(exif=exif, icc_profile=b"profile of " + SECRET, xmp=b"<x:xmpmeta>" + SECRET)
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", SECRET.decode())
        text.add_itxt("Comment", SECRET.decode())
        text.add(b"tIME", b"\x07\xef\5\6\7\x08\x09")
        text.add(b"prVt", SECRET)
        options |= dict(pnginfo=text)
    else:
        options |= dict(comment=SECRET, quality=90)
    data = as_bytes(picture, kind, **options).tobytes()
    if kind == "JPEG":  # application segments of cameras and scanners, and a thumbnail in the JFIF segment
        segment = b"\xff\xed" + struct.pack(">H", 2 + len(SECRET)) + SECRET
        thumbnail = b"\xff\xe0" + struct.pack(">H", 16 + 18) + b"JFIF\0\1\2\1\0H\0H\6\1" + SECRET
        end = 4 + int.from_bytes(data[4:6], "big")
        data = data[:2] + thumbnail + segment + data[end:]
    return data + SECRET


@pytest.mark.parametrize(
    ("kind", "mode"),
    [*(("JPEG", m) for m in ("L", "RGB", "CMYK")), *(("PNG", m) for m in ("L", "RGB", "P", "1", "LA", "RGBA", "I;16"))],
)
def test_metadata_goes_and_every_pixel_stays(rng, kind, mode):
    colour = Image.fromarray(rng.integers(0, 256, (40, 33, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (40, 33), dtype=np.uint16))
    data = with_metadata(deep if mode == "I;16" else colour.convert(mode), kind)
    assert SECRET in data
    got = clean(data).tobytes()
    assert SECRET not in got and len(got) < len(data)
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(got))
    assert (after.mode, after.size, after.format) == (before.mode, before.size, kind)
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    assert not after.getexif() and not {"comment", "icc_profile", "exif", "Author", "xmp"} & set(after.info)
    np.testing.assert_array_equal(clean(got), np.frombuffer(got, np.uint8))


@pytest.mark.parametrize(
    "options", [dict(progressive=True), dict(subsampling=2), dict(keep_rgb=True), dict(optimize=True)]
)
def test_every_kind_of_jpeg_keeps_its_pixels(rng, options):
    data = as_bytes(Image.fromarray(rng.integers(0, 256, (35, 50, 3), dtype=np.uint8)), "JPEG", **options)
    np.testing.assert_array_equal(opened(clean(data.tobytes())), opened(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_exif_turns_is_stored_turned(rng, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = Image.fromarray(rng.integers(0, 256, (6, 9), dtype=np.uint8)).resize((48, 32))
    options = dict(lossless=True) if kind == "WEBP" else {}
    data = as_bytes(pixels, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L"))
    got = Image.open(io.BytesIO(clean(data.tobytes())))
    np.testing.assert_array_equal(np.asarray(got.convert("L")), expected)
    assert not got.getexif()


def test_sixteen_bits_survive_a_turn(rng):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
    np.testing.assert_array_equal(
        opened(clean(as_bytes(Image.fromarray(pixels), "PNG", exif=exif).tobytes())), np.rot90(pixels, 3)
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P", "CMYK", "RGBA"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_becomes_png_with_the_same_pixels(rng, mode, compression):
    colour = Image.fromarray(rng.integers(0, 256, (20, 31, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (20, 31), dtype=np.uint16))
    picture = deep if mode == "I;16" else colour.convert(mode)
    got = Image.open(
        io.BytesIO(clean(as_bytes(picture, "TIFF", compression=compression, tiffinfo={270: SECRET.decode()}).tobytes()))
    )
    assert got.format == "PNG"
    np.testing.assert_array_equal(
        np.asarray(got), np.asarray(picture if mode in ("L", "I;16") else picture.convert("RGB"))
    )


def tiff(values: np.ndarray, bits: int, photometric: int, sample_format: int = 1) -> bytes:
    """A little-endian TIFF of one strip, packed by hand."""
    height, width = values.shape
    if bits == 12:  # two samples in three bytes
        a, b = values[:, ::2].astype(np.uint32), values[:, 1::2].astype(np.uint32)
        joined = (a << 12 | b).ravel()
        strip = np.stack([joined >> 16, joined >> 8 & 255, joined & 255], -1).astype(np.uint8).tobytes()
    else:
        strip = values.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 0), (277, 1), (278, height)]
    tags += [(279, len(strip)), (339, sample_format)]
    start = 8 + 2 + 12 * len(tags) + 4
    tags = [(k, start if k == 273 else v) for k, v in tags]
    entries = b"".join(struct.pack("<HHII", k, 4 if k in (273, 279) else 3, 1, v) for k, v in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + strip


def test_twelve_bits_fill_sixteen():
    values = np.array([[0, 1, 2048, 4095]], np.uint16)
    got = opened(clean(tiff(values, 12, 1)))
    np.testing.assert_allclose(got, values * (65535 / 4095), atol=16)
    assert got[0, 0] == 0 and got[0, -1] == 65535


def test_where_zero_is_white_it_becomes_black(rng):
    values = rng.integers(0, 65536, (4, 6), dtype=np.uint16)
    np.testing.assert_array_equal(opened(clean(tiff(values, 16, 0))), 65535 - values)
    np.testing.assert_array_equal(opened(clean(tiff(values.astype(np.uint8), 8, 0))), 255 - values.astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "bits", "sample_format", "message"),
    [
        (np.array([[0.5, 2.0]], np.float32), 32, 3, "floating-point pixels, whose range is unknown"),
        (np.array([[-5, 300]], np.int16), 16, 2, r"pixels beyond 0\.\.65535"),
    ],
)
def test_pixels_without_a_known_range_are_refused(values, bits, sample_format, message):
    with pytest.raises(UserError, match=message):
        clean(tiff(values, bits, 1, sample_format))


def test_a_page_of_several_must_be_chosen(tmp_path, rng):
    pages = [Image.fromarray(rng.integers(0, 256, (5, 6), dtype=np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=r"s\.tif: has 3 pages; choose one with the reader option page=0\.\.2"):
        read_encoded(tmp_path / "s.tif")
    np.testing.assert_array_equal(opened(read_encoded(tmp_path / "s.tif", page=2)), np.asarray(pages[2]))
    with pytest.raises(UserError, match="has 3 pages"):
        read_encoded(tmp_path / "s.tif", page=3)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            png(60000, 60000, chunk(b"IDAT", zlib.compress(bytes(10**6)))),
            "claims 3600000000 bytes of pixels and holds 0",
        ),
        (png(9, 9, chunk(b"IDAT", zlib.compress(bytes(20)))), "claims 81 bytes of pixels and holds 20"),
        (png(9, 9, chunk(b"IDAT", zlib.compress(bytes(90)))[:-1] + b"x"), "wrong checksum in its chunk b'IDAT'"),
        (png(9, 9, chunk(b"CgBI", b"1234")), "unknown critical PNG chunk b'CgBI'"),
        (png(9, 9)[:-1], "is truncated"),
        (b"\xff\xd8\xff\xd9", "cannot be read as an image"),
    ],
)
def test_damaged_and_boastful_files_are_refused_before_memory_is_taken(data, message):
    with pytest.raises(UserError, match=message) as caught:
        clean(data)
    assert "\n" not in str(caught.value)


def test_a_jpeg_that_claims_more_than_its_bytes_can_hold_is_refused():
    data = bytearray(as_bytes(Image.new("L", (16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(UserError, match="claims 65535 x 65535 pixels in"):
        clean(bytes(data))


def test_too_many_pixels_are_refused(monkeypatch, rng):
    monkeypatch.setattr(image, "MAX_PIXELS", 99)
    with pytest.raises(UserError, match="claims 10 x 10 pixels, the limit is 99"):
        clean(encode_png(rng.integers(0, 256, (10, 10), dtype=np.uint8)).tobytes())


def test_no_mutation_of_a_file_does_more_than_to_be_refused(rng):
    picture = Image.fromarray(rng.integers(0, 256, (24, 17, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
        original = as_bytes(picture, kind).tobytes()
        for _ in range(60):
            data = bytearray(original)
            for at in rng.integers(0, min(len(data), 700), 3):
                data[at] = rng.integers(0, 256)
            try:
                got = clean(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert opened(got).size < 10**8


def test_real_radiographs_keep_every_pixel(test_data):
    files = sorted(test_data.glob("cxr_*/images/*.jpg"))
    assert len(files) == 186 + 173
    for path in files[::4]:
        np.testing.assert_array_equal(opened(read_encoded(path)), np.asarray(Image.open(path)))
