"""What every corruption promises: pure, ordered by its level, and an item that its transform still takes."""

import itertools
from collections import Counter

import numpy as np
import pytest

from medjax.data.chunks import StoredVolume, encode_volume
from medjax.data.manifest import Modality
from medjax.data.readers.image import decode, encode_png
from medjax.data.readers.leads import LEADS
from medjax.data.records import decode_text, encode_text
from medjax.data.sources import Phantom
from medjax.data.transforms import TRANSFORMS
from medjax.data.transforms.volume import VolumeConfig
from medjax.data.volumes import Volume
from medjax.errors import UserError
from medjax.evaluation.corruptions import LEVELS, SETS, corruptions_of
from medjax.evaluation.corruptions.image import decoded

NAMES = ("sodium", "potassium", "crp", "urea")
STATISTICS = {n: (10.0 * (i + 1), 2.0, 0.0, 99.0, 1.0) for i, n in enumerate(NAMES)}
SCHEMAS = {
    "image": Modality("image"),
    "ecg": Modality("ecg", LEADS, ("mV",) * 12, 100),
    "labs": Modality("labs", NAMES, ("",) * 4, statistics=STATISTICS),
    "text": Modality("text"),
    "volume": Modality("volume"),
}
CASES = [
    pytest.param(kind, c, id=f"{kind}-{name}-{c.name}" if name else f"{kind}-{c.name}")
    for kind in SCHEMAS
    for name in (SETS if kind == "image" else [""])
    for c in corruptions_of(kind, name or "chest")
]


@pytest.fixture(scope="module")
def items() -> dict[str, list]:
    """A few of each kind; pictures in gray and in colour, one ECG with an absent lead."""
    studies = [Phantom(patients=3, size=96).render(i, 0).items for i in range(3)]
    gray = [np.asarray(decode(s["image"][0])) for s in studies if "image" in s]
    tint = np.array([1.0, 0.8, 0.6])
    coloured = [(x[..., None] * tint).astype(np.uint8) for x in gray]
    ecgs = [s["ecg"][0].copy() for s in studies if "ecg" in s]
    ecgs[0][3] = np.nan
    rng = np.random.default_rng(0)
    d, h, w = np.mgrid[:24, :20, :22] / 20
    voxels = (1000 * np.sin(3 * d + h) * np.cos(4 * w * h)).astype(np.int16)
    return {
        "image": [encode_png(x) for x in [*gray, *coloured]],
        "ecg": ecgs,
        "labs": [rng.normal(20, 3, 4).astype(np.float32) for _ in range(40)],
        "text": [encode_text("Chest X-ray. Left pleural effusion with consolidation. No pneumothorax. " * 4)] * 8,
        "volume": [Volume(voxels, (2.0, 1.0, 1.0)), Volume(np.stack([voxels] * 2, 3).astype(np.float32), (1, 1, 1))],
    }


def numbers(kind: str, item) -> np.ndarray:
    """What differences are taken of."""
    if kind == "image":
        found = decoded(item).astype(np.float64)
        return np.broadcast_to(found[..., None] if found.ndim == 2 else found, (*found.shape[:2], 3))
    if kind == "volume":
        return item.values.astype(np.float64)
    return np.nan_to_num(item.astype(np.float64))


def change(kind: str, before, after) -> float:
    """Mean absolute difference; of texts, the share of the words that are no longer there."""
    if kind == "text":
        words = Counter(decode_text(before).split())
        return 1 - (words & Counter(decode_text(after).split())).total() / words.total()
    return float(np.abs(numbers(kind, before) - numbers(kind, after)).mean())


@pytest.mark.parametrize(("kind", "corruption"), CASES)
def test_a_level_is_a_pure_function_that_orders_the_change(kind, corruption, items):
    schema, total = SCHEMAS[kind], np.zeros(5)
    for i, item in enumerate(items[kind]):
        kept = numbers(kind, item).copy() if kind != "text" else item.copy()
        found = [corruption(item, level, schema, seed=1, index=i) for level in LEVELS]
        again = corruption(item, 3, schema, seed=1, index=i)
        np.testing.assert_array_equal(numbers(kind, found[2]), numbers(kind, again))
        np.testing.assert_array_equal(kept, numbers(kind, item) if kind != "text" else item)
        total += [change(kind, item, x) for x in found]
    assert total[-1] > 0 or corruption.name == "sentence_shuffle"
    if corruption.monotone:
        assert (np.diff(total) >= -1e-9).all() and total[-1] > total[0], total


@pytest.mark.parametrize("kind", SCHEMAS)
def test_random_numbers_depend_on_seed_and_example(kind, items):
    item, schema = items[kind][-1], SCHEMAS[kind]
    drawn = [c for c in corruptions_of(kind) if "noise" in c.name or c.name == "typos"]
    for c in drawn:
        base = c(item, 5, schema, seed=0, index=0)
        for other in (c(item, 5, schema, 1, 0), c(item, 5, schema, 0, 1), c(item, 5, schema, 0, 0, number=1)):
            same = base.values if kind == "volume" else base
            assert not np.array_equal(same, other.values if kind == "volume" else other)


@pytest.mark.parametrize("kind", ["image", "ecg", "labs", "volume"])
def test_the_transform_takes_what_comes_out(kind, items, tmp_path):
    config, transform = TRANSFORMS[kind]
    options = {"volume": VolumeConfig(size=(8, 8, 8))}
    made = transform.create(options.get(kind, config()), SCHEMAS[kind], tmp_path)
    for c in corruptions_of(kind):
        for level in (1, 5):
            values = made.finish(made.prepare(c(items[kind][0], level, SCHEMAS[kind], 0, 0)), None)
            for x in values.values() if isinstance(values, dict) else [values]:
                assert np.isfinite(x).all(), c.name


def test_texts_are_never_emptied():
    for c in corruptions_of("text"):
        for level in LEVELS:
            assert decode_text(c(encode_text("no."), level, SCHEMAS["text"], 0, 0)).strip()


def test_noise_has_the_power_that_is_asked_for():
    ecg = np.tile(np.sin(2 * np.pi * np.arange(1000) / 100), (12, 1)).astype(np.float32)
    noise = {c.name: c for c in corruptions_of("ecg")}["noise"]
    for level, decibels in zip(LEVELS, noise.severities, strict=True):
        added = noise(ecg, level, SCHEMAS["ecg"], 0, 0) - ecg
        np.testing.assert_allclose(10 * np.log10(ecg.var() / added.var()), decibels, atol=0.3)
    gray = np.full((256, 256), 128, np.uint8)
    gaussian = {c.name: c for c in corruptions_of("image")}["gaussian_noise"]
    np.testing.assert_allclose(gaussian(gray, 2, SCHEMAS["image"], 0, 0).std() / 255, 0.08, atol=0.002)


def test_leads_and_values_go_missing_in_the_stated_share(items):
    lost = {c.name: c for c in corruptions_of("ecg")}["lead_dropout"]
    absent = [np.isnan(lost(items["ecg"][1], k, SCHEMAS["ecg"], 0, 0)).all(axis=1) for k in LEVELS]
    assert [int(x.sum()) for x in absent] == [1, 2, 4, 6, 9]
    assert all((b | a == b).all() for a, b in itertools.pairwise(absent))  # a level adds to the last
    missing = {c.name: c for c in corruptions_of("labs")}["missing"]
    shares = [
        np.mean([np.isnan(missing(x, k, SCHEMAS["labs"], 0, i)) for i, x in enumerate(items["labs"])]) for k in LEVELS
    ]
    np.testing.assert_allclose(shares, missing.severities, atol=0.1)


def test_a_volume_that_is_stored_in_chunks_is_corrupted_as_it_is(items):
    volume = items["volume"][0]
    header, boxes = encode_volume(volume, side=16)
    stored = StoredVolume(header, boxes.__getitem__)
    for c in corruptions_of("volume"):
        found, expected = (c(x, 3, SCHEMAS["volume"], 0, 0) for x in (stored, volume))
        np.testing.assert_array_equal(found.values, expected.values)
        assert found.spacing == volume.spacing


def test_a_picture_can_be_shrunk_and_gray_stays_gray():
    coloured = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    assert decoded(coloured, 20).shape == (20, 40, 3)
    assert decoded(coloured, 50).shape == (40, 80, 3)
    assert decoded(np.repeat(coloured[..., :1], 3, axis=2)).shape == (40, 80)
    assert decoded(np.full((4, 4), 65535, np.uint16)).max() == 255


def test_an_unknown_set_is_named():
    with pytest.raises(UserError, match="did you mean 'chest'"):
        corruptions_of("image", "chst")
