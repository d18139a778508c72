"""What every transform promises: fixed structure, no chance without random numbers, a specification in JSON."""

import json

import jax
import numpy as np
import pytest

from medjax.data import manifest as manifests
from medjax.data.items import items_of
from medjax.data.records import decode
from medjax.data.transforms import make_transforms

PLAIN = {"image": dict(size=16), "ecg": dict(samples=300, lead_mask=True), "labs": {}, "text": dict(length=20)}
AUGMENTED = {
    "image": dict(
        size=16,
        crop=0.5,
        shift=0.2,
        zoom=0.2,
        rotate=10.0,
        shear=5.0,
        flip=0.5,
        flip_vertical=0.5,
        gamma=0.3,
        blur=1.0,
        brightness=0.1,
        contrast=0.3,
        noise=0.02,
    ),
    "ecg": dict(samples=300, lead_mask=True, warp=0.1, gain=0.2, wander=0.1, noise=0.1, lead_drop=0.3),
    "labs": dict(drop=0.4),
    "text": dict(length=20, sentence_sample=3, shuffle=True, sentence_drop=0.4),
}


@pytest.fixture(scope="module")
def raw(phantom_dir):
    """One raw item of every modality."""
    import grain

    source = grain.sources.ArrayRecordDataSource([str(phantom_dir / "train-00000.array_record")])
    records = (decode(source[i]) for i in range(len(source)))
    return next(r for r in records if all(items_of(r, m) for m in PLAIN))


def transform(phantom_dir, options, name):
    return make_transforms({name: options[name]}, manifests.read(phantom_dir), phantom_dir)[name]


def structure(value):
    return jax.tree.map(lambda x: (np.shape(x), np.asarray(x).dtype), value)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differs(a, b) -> bool:
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", PLAIN)
def test_without_random_numbers_nothing_is_augmented(phantom_dir, raw, name):
    plain, augmented = (transform(phantom_dir, o, name) for o in (PLAIN, AUGMENTED))
    item = raw[f"{name}/0"]
    expected = plain.finish(plain.prepare(item), None)
    assert_equal(augmented.finish(augmented.prepare(item), None), expected)
    if name != "ecg":  # with random numbers the window of an ECG starts anywhere
        assert_equal(plain.finish(plain.prepare(item), np.random.default_rng(0)), expected)


@pytest.mark.parametrize("name", PLAIN)
def test_equal_random_numbers_give_equal_arrays_and_others_do_not(phantom_dir, raw, name):
    t = transform(phantom_dir, AUGMENTED, name)
    prepared = t.prepare(raw[f"{name}/0"])
    results = [t.finish(prepared, np.random.default_rng(seed)) for seed in (*range(8), 0)]
    assert_equal(results[0], results[-1])
    assert sum(differs(results[0], r) for r in results[1:-1]) >= 6


@pytest.mark.parametrize("name", PLAIN)
def test_finishing_leaves_the_prepared_item_alone(phantom_dir, raw, name):
    t = transform(phantom_dir, AUGMENTED, name)
    prepared = t.prepare(raw[f"{name}/0"])
    before = t.finish(prepared, None)
    for seed in range(4):
        t.finish(prepared, np.random.default_rng(seed))
    assert_equal(t.finish(prepared, None), before)
    assert_equal(t.finish(t.prepare(raw[f"{name}/0"]), None), before)


@pytest.mark.parametrize("name", PLAIN)
def test_an_absent_item_has_the_structure_of_a_present_one(phantom_dir, raw, name):
    t = transform(phantom_dir, AUGMENTED, name)
    prepared = t.prepare(raw[f"{name}/0"])
    assert structure(t.empty()) == structure(t.finish(prepared, None))
    assert structure(t.empty()) == structure(t.finish(prepared, np.random.default_rng(0)))


@pytest.mark.parametrize("name", PLAIN)
def test_the_specification_is_json_names_its_kind_and_ignores_augmentation(phantom_dir, name):
    plain, augmented = (transform(phantom_dir, o, name).spec() for o in (PLAIN, AUGMENTED))
    assert json.loads(json.dumps(plain)) == plain == augmented
    assert plain["kind"] == manifests.read(phantom_dir).modality(name).kind


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("image", {"size", "channels", "fit", "mean", "std", "resample"}),
        ("ecg", {"leads", "rate", "unit", "samples", "scale", "clip", "lead_mask"}),
        ("labs", {"names", "mean", "std", "low", "high"}),
        ("text", {"length", "vocab_size", "pad_id"}),
    ],
)
def test_the_specification_holds_all_that_preprocessing_depends_on(phantom_dir, name, keys):
    assert set(transform(phantom_dir, PLAIN, name).spec()) == keys | {"kind"}
