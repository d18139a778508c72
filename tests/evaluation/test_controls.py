"""Controls find what they must and nothing more."""

import numpy as np
import pytest

from medjax.evaluation.controls import attribute_features, attribute_probe, shuffled
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import joined_features, linear_probe

ATTRIBUTES = {"sex": ("female", "male"), "age": ()}
NAMES = ("old_man", "sick")


def table(rng, n) -> EmbeddingTable:
    x = rng.normal(size=(n, 3)).astype(np.float32)
    sex, age = rng.integers(0, 2, n).astype(np.float32), rng.normal(60, 15, n).astype(np.float32)
    labels = np.stack([(sex == 1) & (age > 60), x[:, 0] > 0], axis=1).astype(np.float32)
    age[::10] = np.nan
    present = {"image": rng.random(n) < 0.9}
    attributes = {"sex": sex, "age": age}
    return EmbeddingTable(
        {"image": x}, present, np.arange(n), np.arange(n), labels, NAMES, np.arange(n), attributes=attributes
    )


@pytest.fixture
def tables(rng):
    return {k: table(rng, n) for k, n in (("train", 400), ("validation", 150), ("test", 300))}


def test_attributes_alone_find_what_hangs_on_them(tables):
    result = attribute_probe(tables, NAMES, ATTRIBUTES, ("image",))
    assert result.auroc["old_man"].value > 0.85
    assert result.auroc["sick"].low < 0.5 < result.auroc["sick"].high


def test_attribute_features_are_presence_values_and_what_is_known(tables):
    found = attribute_features(tables["test"], ATTRIBUTES, ("image",)).x
    test = tables["test"]
    sex, age = test.attributes["sex"], test.attributes["age"]
    assert found.shape == (300, 5)
    np.testing.assert_array_equal(found[:, 0], test.present["image"])
    np.testing.assert_array_equal(found[:, 1:3], np.stack([sex == 0, sex == 1], axis=1))
    np.testing.assert_allclose(found[:, 3], np.where(np.isnan(age), np.nanmean(age), age), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 4], ~np.isnan(age))


def test_shuffled_embeddings_find_nothing_and_are_the_same_embeddings(tables):
    dealt = {k: shuffled(t, seed) for seed, (k, t) in enumerate(tables.items())}
    for k, t in tables.items():
        there = t.present["image"]
        np.testing.assert_array_equal(
            np.sort(dealt[k].embeddings["image"][there], axis=0), np.sort(t.embeddings["image"][there], axis=0)
        )
        np.testing.assert_array_equal(dealt[k].embeddings["image"][~there], t.embeddings["image"][~there])
    kept, lost = (
        linear_probe({k: joined_features(t, ["image"]) for k, t in s.items()}, NAMES) for s in (tables, dealt)
    )
    assert kept.auroc["sick"].value > 0.9 and lost.auroc["sick"].low < 0.5 < lost.auroc["sick"].high
