"""The stand-alone preprocessing gives, bit for bit, what the training transforms give."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medjax.data import manifest as manifests
from medjax.data.readers.image import encode_png
from medjax.data.transforms import make_transforms
from medjax.data.transforms.ecg import EcgConfig, EcgTransform
from medjax.data.transforms.image import ImageConfig, ImageTransform
from medjax.data.transforms.labs import LabsConfig, LabsTransform
from medjax.data.transforms.volume import VolumeConfig, VolumeTransform

# A folder of tests is named torch too, and would pass for the package where that is missing.
pytest.importorskip("torch.nn")
modeling = pytest.importorskip("medjax.torch.modeling")

PICTURES = {
    "wide": np.random.default_rng(0).integers(0, 256, (30, 50), np.uint8),
    "high": np.random.default_rng(1).integers(0, 256, (61, 33), np.uint8),
    "colour": np.random.default_rng(2).integers(0, 256, (20, 20, 3), np.uint8),
}
LABS = LabsTransform(LabsConfig(), ("a", "b", "c"), (1.0, 2.0, 3.0), (0.5, 1.5, 0.1), (0.0, 0.0, 2.9), (2.0, 9.0, 3.1))
PERCENTILES = tuple(tuple(np.sort(np.random.default_rng(i).gamma(2, size=99)).tolist()) for i in range(3))
RANKED = replace(LABS, config=LabsConfig(scaling="percentile"), percentiles=PERCENTILES)


def _assert_equal(transform, prepare, value, *extra):
    spec = json.loads(json.dumps(transform.spec()))  # as it comes back from preprocessing.json
    want = transform.finish(transform.prepare(transform.raw(value)), None)
    found = prepare(spec, value, *extra)
    if not isinstance(want, dict):
        want, found = {"": want}, {"": found}
    assert want.keys() == found.keys()
    for key in want:
        np.testing.assert_array_equal(found[key], want[key])
        assert np.shape(found[key]) == np.shape(want[key])


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(PICTURES))
def test_images_as_array_pillow_bytes_and_path(name, channels, fit, tmp_path):
    transform = ImageTransform(ImageConfig(size=24, channels=channels, fit=fit, mean=0.35, std=0.21))
    pixels = PICTURES[name]
    path = tmp_path / "picture.png"
    path.write_bytes(encode_png(pixels).tobytes())
    for value in (pixels, Image.fromarray(pixels), path.read_bytes(), path, str(path)):
        _assert_equal(transform, modeling.prepare_image, value)


def test_sixteen_bit_and_transparent_pictures(tmp_path, rng):
    transform = ImageTransform(ImageConfig(size=16))
    deep, clear = tmp_path / "deep.png", tmp_path / "clear.png"
    Image.fromarray(rng.integers(0, 65536, (20, 30)).astype(np.uint16)).save(deep)
    Image.fromarray(rng.integers(0, 256, (20, 30, 4)).astype(np.uint8)).save(clear)
    for path in (deep, clear):
        for options in ({}, {"channels": 3}, {"window": (2, 98)}):
            _assert_equal(replace(transform, config=ImageConfig(size=16, **options)), modeling.prepare_image, path)
    _assert_equal(transform, modeling.prepare_image, rng.integers(0, 65536, (20, 30)).astype(np.uint16))


@pytest.mark.parametrize("samples", [90, 99, 100, 101, 102, 150])
def test_ecgs_longer_shorter_and_beyond_the_clip(samples, rng):
    transform = EcgTransform(EcgConfig(samples=100, scale=0.3, clip=2.0), ("I", "II"), 100.0)
    signal = rng.normal(size=(2, samples))
    _assert_equal(transform, modeling.prepare_ecg, signal)
    signal[1] = np.nan  # not recorded
    _assert_equal(transform, modeling.prepare_ecg, signal)
    _assert_equal(replace(transform, config=EcgConfig(samples=100, lead_mask=True)), modeling.prepare_ecg, signal)


@pytest.mark.parametrize(
    "value",
    [{"a": 1.2}, {"c": 3.0, "b": float("inf")}, {}, np.array([np.nan, -np.inf, 3.05]), [0.1, 100.0, 0.0]],
    ids=["one", "beyond a limit", "none", "array", "list"],
)
@pytest.mark.parametrize("transform", [LABS, RANKED], ids=["standard", "percentile"])
def test_lab_values_with_gaps_and_limits(value, transform):
    _assert_equal(transform, modeling.prepare_labs, value)


@pytest.mark.parametrize("text", ["Heart of normal size.", "unheard-of wörds", "anaemia " * 60], ids=str.split)
def test_texts_short_unknown_and_cut(text, phantom_dir):
    manifest = manifests.load(phantom_dir)
    transform = make_transforms({"text": {"length": 24}}, manifest, phantom_dir)["text"]
    tokenizer = modeling_tokenizer(phantom_dir)
    _assert_equal(transform, modeling.prepare_text, text, tokenizer)


def modeling_tokenizer(directory):
    """As `from_pretrained` loads it: without the training transform's truncation."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(directory / "tokenizer" / "tokenizer.json"))


@pytest.mark.parametrize(
    ("prepare", "spec", "value", "message"),
    [
        (modeling.prepare_image, {"size": 8, "channels": 1}, np.zeros((4, 4)), "uint8"),
        (modeling.prepare_ecg, {"leads": ["I", "II"]}, np.zeros((3, 9)), r"\[2, T\] \(I, II\)"),
        (modeling.prepare_ecg, {"leads": ["I"]}, np.full((1, 9), np.nan), "finite"),
        (modeling.prepare_labs, LABS.spec(), {"z": 1.0}, "unknown lab values z; valid: a, b, c"),
        (modeling.prepare_labs, LABS.spec(), [1.0], r"must be \[3\]"),
    ],
)
def test_bad_inputs_name_what_is_expected(prepare, spec, value, message):
    with pytest.raises(ValueError, match=message):
        prepare(spec, value)


@pytest.mark.parametrize("value", ["  ", 3])
def test_texts_that_are_none(value):
    with pytest.raises(ValueError, match="text must be a string"):
        modeling.prepare_text({"length": 4, "pad_id": 0}, value, None)


VOLUMES = {
    "crop": dict(fit="crop"),
    "crop to a spacing": dict(fit="crop", spacing=(1.7, 1.0, 0.9), scaling="window", window=(-160.0, 240.0)),
    "pad": dict(fit="pad", mean=0.3, std=0.2),
    "pad with proportions": dict(fit="pad", spacing=(2.0, 1.0, 1.0), scaling="zscore"),
    "stretch": dict(fit="stretch", window=(5.0, 90.0), channels=2),
}


@pytest.mark.parametrize("size", [(8, 16, 12), (31, 9, 40)])
@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_larger_smaller_and_of_another_spacing(name, size, rng):
    transform = VolumeTransform(VolumeConfig(size=size, **VOLUMES[name]))
    shape = (20, 17, 30) if transform.config.channels == 1 else (20, 17, 30, 2)
    for dtype in (np.int16, np.float32):
        values = rng.normal(0, 400, shape).astype(dtype)
        _assert_equal(transform, modeling.prepare_volume, {"values": values, "spacing": (3.0, 1.2, 0.8)})
    _assert_equal(transform, modeling.prepare_volume, values)


def test_what_is_no_volume_is_refused():
    spec = VolumeTransform(VolumeConfig(size=(4, 4, 4))).spec()
    for values in (np.zeros((4, 4)), np.zeros((4, 4, 4, 2)), np.full((4, 4, 4), np.nan)):
        with pytest.raises(ValueError, match="volume must be"):
            modeling.prepare_volume(spec, values)
