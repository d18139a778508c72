"""Pictures are read to 8 bits, and files that are no pictures are named."""

import io

import numpy as np
import pytest
from PIL import Image

from medjax.data.readers.image import decode, encode_png, read_encoded
from medjax.errors import UserError


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
