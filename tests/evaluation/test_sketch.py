"""Planted near-duplicates are found by their sketch, unrelated items are not, and the sketch survives its file."""

import io

import numpy as np
import pytest
from PIL import Image

from medjax.data.records import encode_text
from medjax.data.volumes import Volume
from medjax.errors import UserError
from medjax.evaluation import sketch

SALT = bytes(range(16))


def pictures(rng, n: int) -> list[np.ndarray]:
    """uint8[96, 96]: smooth, as bodies are, and each another."""
    coarse = rng.standard_normal((n, 7, 7)).astype(np.float32)
    smooth = [np.asarray(Image.fromarray(c).resize((96, 96), Image.Resampling.BICUBIC)) for c in coarse]
    return [(127 + 40 * s + 3 * rng.standard_normal(s.shape)).clip(0, 255).astype(np.uint8) for s in smooth]


def encoded(pixels: np.ndarray, kind: str, **options) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return np.frombuffer(out.getvalue(), np.uint8)


@pytest.fixture
def trained(rng):
    """A sketch of 150 pictures, and these."""
    training = pictures(rng, 150)
    return sketch.make({"image": "image"}, [{"image": [encoded(p, "png")]} for p in training], SALT), training


@pytest.mark.parametrize(
    "change",
    [
        lambda p: encoded(p, "png"),
        lambda p: encoded(p, "jpeg", quality=60),
        lambda p: encoded((p * 0.95 + 8).clip(0, 255).astype(np.uint8), "png"),
        lambda p: encoded(np.asarray(Image.fromarray(p).resize((70, 70))), "jpeg", quality=80),
    ],
    ids=["same", "jpeg", "brightness", "smaller"],
)
def test_the_same_picture_is_found_however_it_is_encoded(trained, change):
    known, training = trained
    assert all(sketch.matches(known, "image", [change(p) for p in training]))


def test_unrelated_pictures_match_no_more_often_than_the_sketch_says(trained, rng):
    known, _ = trained
    held_out, others = ([{"image": [encoded(p, "png")]} for p in pictures(rng, n)] for n in (100, 200))
    (stated, n), (found, m) = (sketch.false_matches(known, x)["image"] for x in (held_out, others))
    from scipy.stats import beta

    assert (n, m) == (100, 200) and found / m <= beta.ppf(0.975, stated + 1, n - stated)
    assert found / m < 0.03


def test_other_kinds_of_items_are_found_too(rng):
    words = [f"w{i}" for i in range(500)]
    reports = [" ".join(rng.choice(words, 40)) for _ in range(40)]
    ecgs = [np.cumsum(rng.standard_normal((12, 1000)), 1).astype(np.float32) for _ in range(40)]
    labs = [rng.uniform(1, 200, 6).astype(np.float32) for _ in range(40)]
    volumes = [Volume(rng.integers(0, 900, (4, 5, 6)).astype(np.int16), (3.0, 1.0, 1.0)) for _ in range(40)]
    kinds = {"text": "text", "ecg": "ecg", "labs": "labs", "volume": "volume"}
    studies = [
        {"text": [encode_text(r)], "ecg": [e], "labs": [x], "volume": [v]}
        for r, e, x, v in zip(reports, ecgs, labs, volumes, strict=True)
    ]
    known = sketch.make(kinds, studies[:20], SALT)
    again = {
        "text": [encode_text(r.upper().replace(" ", ",  ") + " Reported.") for r in reports],
        "ecg": [e * 1.1 + 0.001 * rng.standard_normal(e.shape).astype(np.float32) for e in ecgs],
        "labs": [x * np.float32(1.00001) for x in labs],
        "volume": [Volume((v.values * 2 + 5).astype(np.int16), v.spacing) for v in volumes],
    }
    for m, items in again.items():
        found = sketch.matches(known, m, items)
        assert sum(found[:20]) >= 19 and not any(found[20:]), m


def test_a_sketch_comes_back_from_its_file_and_another_salt_gives_other_keys(trained, tmp_path):
    known, training = trained
    known.save(tmp_path)
    found = sketch.read(tmp_path)
    assert found.holds("image", encoded(training[0], "png")) and found.items == {"image": 150}
    other = sketch.make({"image": "image"}, [{"image": [encoded(training[0], "png")]}], SALT[::-1])
    assert not np.isin(other.keys["image"], known.keys["image"]).any()
    with pytest.raises(UserError, match="export with --sketch"):
        sketch.read(tmp_path / "elsewhere")
    np.savez(tmp_path / sketch.FILE, about=np.frombuffer(b'{"format": "old"}', np.uint8))
    with pytest.raises(UserError, match="cannot be read as a sketch"):
        sketch.read(tmp_path)


def test_what_cannot_be_read_is_left_out(trained):
    known, _ = trained
    assert sketch.matches(known, "image", [np.zeros(5, np.uint8)]) == []
