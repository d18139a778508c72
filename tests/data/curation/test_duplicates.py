"""Near-duplicates: what a hash is, what is dropped, and that it never depends on chance."""

import numpy as np
import pytest
from PIL import Image

from medjax.data.curation.duplicates import dhash, distinct_embeddings, distinct_hashes, entropy, informative, to_gray8
from medjax.errors import UserError


def _slices(rng, count=24, size=48):
    """A volume whose slices change smoothly."""
    ends = rng.uniform(0, 255, (3, size, size))
    at = np.linspace(0, 2, count)
    return [to_gray8(ends[int(t) % 3] * (1 - t % 1) + ends[min(int(t) + 1, 2)] * (t % 1)) for t in at]


def test_hash_is_the_signs_of_the_horizontal_differences(rng):
    picture = rng.integers(0, 256, (40, 56), dtype=np.uint8)
    small = Image.fromarray(picture).resize((9, 8), Image.Resampling.BICUBIC)
    bits = "".join(
        "1" if small.getpixel((x, y)) > small.getpixel((x + 1, y)) else "0" for y in range(8) for x in range(8)
    )
    assert int(dhash(picture)) == int(bits, 2)
    with pytest.raises(UserError, match="uint8"):
        dhash(picture.astype(np.float32))


def test_kept_hashes_are_apart_and_dropped_ones_near(rng):
    hashes = np.array([dhash(s) for s in _slices(rng)])
    stands_for = distinct_hashes(hashes, 6)
    kept = np.flatnonzero(stands_for == np.arange(len(hashes)))
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    assert (distance[np.ix_(kept, kept)] + 64 * np.eye(len(kept), dtype=int) > 6).all()
    assert (distance[np.arange(len(hashes)), stands_for] <= 6).all()
    assert 1 < len(kept) < len(hashes)


def test_identical_pictures_collapse_to_the_first(rng):
    picture = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    assert distinct_hashes([dhash(picture)] * 5, 0).tolist() == [0] * 5
    assert distinct_embeddings(np.ones((4, 3), np.float32)).tolist() == [0] * 4


@pytest.mark.parametrize("limit", [0, 1, 6, 31, 63, 64])
def test_bands_find_what_all_pairs_find(rng, limit):
    hashes = rng.integers(0, 2**63, 20, dtype=np.uint64)[rng.integers(20, size=120)]
    for bit in range(12):  # close to each other and apart
        hashes[rng.random(120) < 0.3] ^= np.uint64(1) << np.uint64(5 * bit)
    expected, kept = [], []
    for i, h in enumerate(hashes):
        near = [j for j in kept if (int(h) ^ int(hashes[j])).bit_count() <= limit]
        expected.append(near[0] if near else i)
        kept += [] if near else [i]
    assert distinct_hashes(hashes, limit).tolist() == expected


def test_a_wider_threshold_keeps_no_more(rng):
    hashes = [dhash(s) for s in _slices(rng, 40)]
    counts = [len(set(distinct_hashes(hashes, h).tolist())) for h in (0, 2, 6, 12, 24, 64)]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 1


def test_embeddings_are_compared_by_direction(rng):
    a, b = np.eye(2, 8, dtype=np.float32)
    rows = np.stack([a, 5 * a, b, a + 0.01 * b, np.zeros(8, np.float32)])
    assert distinct_embeddings(rows, 0.98).tolist() == [0, 0, 2, 0, 4]


def test_entropy_of_known_pictures_and_what_is_informative():
    flat, halves = np.zeros((16, 16), np.uint8), np.repeat([[0, 255]], 128, axis=0).astype(np.uint8)
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (entropy(flat), entropy(halves), entropy(every)) == (0.0, 1.0, 8.0)
    assert informative([flat, every, halves, flat], 0.5).tolist() == [False, True, True, False]
    assert informative([flat, flat], 0.01).tolist() == [True, False]


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="max_hamming"):
        distinct_hashes([], 65)
    with pytest.raises(UserError, match="keep_fraction"):
        informative([], 0.0)
    with pytest.raises(UserError, match="max_cosine"):
        distinct_embeddings(np.zeros((0, 2)), 2.0)
