"""The place of a token in the original is where its patch came from."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medjax.data.records import encode_text
from medjax.data.tokenizer import FOLDER, load, train
from medjax.data.transforms.image import ImageConfig, ImageTransform
from medjax.data.transforms.text import TextConfig, TextTransform
from medjax.data.transforms.volume import VolumeConfig, VolumeTransform
from medjax.data.volumes import Volume
from medjax.errors import UserError
from medjax.evaluation import token_store
from medjax.models import make_tower


def _picture(raw: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(raw).save(out, "png")
    return np.frombuffer(out.getvalue(), np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_bright_spot_lies_where_the_coordinates_of_its_patch_say(fit):
    transform = ImageTransform(ImageConfig(size=32, fit=fit))
    tower = make_tower("image", dict(name="vit", patch=8, width=8, depth=1, heads=1), transform.spec())
    for row, column in ((40, 70), (20, 50), (60, 100)):
        pixels = np.zeros((80, 128), np.uint8)
        pixels[row - 4 : row + 4, column - 4 : column + 4] = 255
        raw = _picture(pixels)
        value = transform.finish(transform.prepare(raw), None)
        at, extent = token_store.places(transform, tower, None, value, raw, 16)
        assert extent.tolist() == [80, 128]
        brightness = value[..., 0].reshape(4, 8, 4, 8).sum((1, 3)).ravel()
        (top, bottom), (left, right) = at[brightness.argmax()]
        assert top - 2 <= row <= bottom + 2 and left - 2 <= column <= right + 2


def test_slices_are_in_millimetres_of_the_original(rng):
    transform = VolumeTransform(VolumeConfig(size=(4, 8, 8), fit="crop"))
    tower = make_tower(
        "volume", dict(name="vit", patch=4, frames=2, width=12, depth=1, heads=1, positions="sincos"), transform.spec()
    )
    volume = Volume(rng.integers(0, 9, (8, 8, 4)).astype(np.int16), (5.0, 2.0, 1.0))
    at, extent = token_store.places(
        transform, tower, None, transform.finish(transform.prepare(volume), None), volume, 8
    )
    assert extent.tolist() == [40, 16, 4]
    np.testing.assert_allclose(at[0], [[10, 20], [0, 8], [-2, 2]])  # two slices cut off before, two columns padded
    np.testing.assert_allclose(at[-1], [[20, 30], [8, 16], [2, 6]])


def test_words_are_found_in_the_report_they_come_from(tmp_path):
    report = "Findings: No effusion. Small nodule.\nImpression: small nodule seen."
    train([report], tmp_path, 200, 1)
    tokenizer = load(tmp_path / FOLDER)
    tokenizer.enable_truncation(32)
    transform = TextTransform(TextConfig(length=32, sections=("impression", "findings")), tokenizer)
    (item,) = transform.split(encode_text(report))
    given = item.tobytes().decode(), report
    at, extent = token_store.places(transform, None, None, transform.finish(transform.prepare(item), None), given, 32)
    spans = [tuple(x[0].astype(int)) for x in at if np.isfinite(x).all()]
    words = "".join(report[a:b] for a, b in spans)
    assert words == "smallnoduleseen.Noeffusion.Smallnodule." and extent.tolist() == [len(report)]
    assert np.isnan(at[0]).all() and np.isnan(at[-1]).all()  # [CLS], padding


def test_leads_and_seconds_of_an_ecg():
    transform = SimpleNamespace(kind="ecg", config=SimpleNamespace(samples=40))
    tower = SimpleNamespace(config=SimpleNamespace(name="ecg_vit", tokens="lead_time", patch=10))
    at, extent = token_store.places(transform, tower, 10.0, np.zeros((2, 40)), np.zeros((2, 60)), 8)
    assert extent.tolist() == [2, 6]
    np.testing.assert_allclose(at[5], [[1, 2], [2, 3]])  # lead 1, second patch, of a crop that starts at 1 s


def test_a_number_too_large_for_float16_is_refused():
    found = {}
    with pytest.raises(UserError, match="--token_dtype=float32"):
        token_store._append(found, "image", (np.full((1, 2), 1e6), [True], 0, 0, 0, 0), "float16")
