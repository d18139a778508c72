"""A volume in chunks is the same volume, and a crop of it reads only the chunks that it touches."""

import itertools
import zlib

import numpy as np
import pytest

from medjax.data.chunks import StoredVolume, encode_volume
from medjax.data.volumes import Volume
from medjax.errors import UserError


class Shelf:
    """Chunks that count who asks for them."""

    def __init__(self, chunks):
        self.chunks, self.asked = list(chunks), []

    def __call__(self, index: int) -> bytes:
        self.asked.append(index)
        return self.chunks[index]


def stored(volume, side=8):
    header, chunks = encode_volume(volume, side)
    shelf = Shelf(chunks)
    return StoredVolume(header, shelf), shelf


@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(20, 9, 17), (8, 8, 8), (1, 1, 30), (5, 9, 4, 3)])
def test_every_bit_comes_back(rng, dtype, shape):
    values = (rng.normal(size=shape) * np.finfo(np.float32).max / 9).astype(np.float32)
    if dtype != "float32":
        values = values.view(dtype)[..., : shape[-1]]
    got, shelf = stored(Volume(values, (1.5, 0.7, 2.0), "HU"))
    assert (got.shape, got.spacing, got.unit) == (shape, (1.5, 0.7, 2.0), "HU")
    assert got.values.dtype == dtype and got.values.tobytes() == values.tobytes()
    assert got.chunks == len(shelf.chunks)


def test_axes_that_are_only_turned_are_stored_in_their_order(rng):
    values = rng.integers(0, 99, (9, 10, 11)).astype(np.int16).transpose(2, 0, 1)[::-1]
    np.testing.assert_array_equal(stored(Volume(values, (1, 1, 1)))[0].values, values)


def test_statistics_come_with_the_header_and_read_nothing(rng):
    volume = Volume(rng.integers(-5, 5, (9, 10, 11)).astype(np.int16), (1, 1, 1))
    got, shelf = stored(volume)
    for a, b in zip(got.statistics, volume.statistics, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not shelf.asked


def test_crops_are_exact_and_read_what_they_touch_once(rng):
    values = rng.integers(0, 999, (20, 17, 31)).astype(np.int16)
    got, shelf = stored(Volume(values, (1, 1, 1)))
    for _ in range(40):
        start = [int(rng.integers(n)) for n in values.shape]
        size = [int(rng.integers(1, n - a + 1)) for n, a in zip(values.shape, start, strict=True)]
        shelf.asked.clear()
        box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        np.testing.assert_array_equal(got.crop(start, size), values[box])
        touched = [range(a // 8, (a + n - 1) // 8 + 1) for a, n in zip(start, size, strict=True)]
        want = {i * 12 + j * 4 + k for i, j, k in itertools.product(*touched)}  # 3 x 3 x 4 chunks
        assert sorted(shelf.asked) == sorted(want)


def test_a_crop_of_a_large_volume_reads_little():
    volume = Volume(np.zeros((128, 128, 128), np.uint8), (1, 1, 1))
    got, shelf = stored(volume, 32)
    got.crop((32, 32, 32), (32, 32, 32))
    assert len(shelf.asked) == 1 and got.chunks == 64


def test_smooth_voxels_become_smaller():
    ramp = np.add.outer(np.add.outer(np.arange(32), np.arange(32)), np.arange(32)) * 7
    _, chunks = encode_volume(Volume(ramp.astype(np.int16), (1, 1, 1)))
    assert len(chunks) == 1 and len(chunks[0]) < ramp.size * 2 / 4


def test_voxels_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="finite"):
        encode_volume(Volume(np.full((2, 2, 2), np.nan, np.float32), (1, 1, 1)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b[:1] + b"\0" + b[2:],
        lambda b: b[:1] + zlib.compress(bytes(10**8)),
        lambda b: b"\x07" + b[1:],
    ],
)
def test_a_damaged_chunk_is_named_and_no_bomb_goes_off(rng, damage):
    got, shelf = stored(Volume(rng.integers(0, 99, (9, 9, 9)).astype(np.int16), (1, 1, 1)))
    shelf.chunks[3] = damage(shelf.chunks[3])
    with pytest.raises(UserError, match="chunk 3"):
        _ = got.values


@pytest.mark.parametrize(
    "change",
    [
        {"shape": np.array([4, 4])},
        {"shape": np.array([4, 4, -4])},
        {"shape": np.array([2**20, 2**20, 2**20])},
        {"dtype": np.frombuffer(b"object", np.uint8)},
        {"side": np.array([0])},
        {"unit": np.array([255, 254], np.uint8)},
    ],
)
def test_a_damaged_header_is_refused(change):
    header, chunks = encode_volume(Volume(np.zeros((4, 4, 4), np.int16), (1, 1, 1)))
    with pytest.raises(UserError, match="build"):
        StoredVolume({**header, **change}, chunks.__getitem__)
    del header["shape"]
    with pytest.raises(UserError, match="build"):
        StoredVolume(header, chunks.__getitem__)
