"""What a modality adds: nothing that is not needed, what only it knows, and what must be read together."""

import numpy as np
import pytest

from medjax.evaluation.bootstrap import summarise, verdict
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.gradient_recipes import sgd
from medjax.evaluation.modality_value import MACRO, modality_value, subsets
from medjax.evaluation.recipes import RECIPES, Recipe

SMALL = Recipe("small", lambda x, y, exclusive: sgd(x, y, exclusive, hidden=32, epochs=60, rates=(0.1, 0.3)), "")
NAMES = ("in_a", "exclusive_or")


def table(rng, n) -> EmbeddingTable:
    x = {m: rng.normal(size=(n, 2)).astype(np.float32) for m in ("a", "b")}
    labels = np.stack([x["a"][:, 0] > 0, (x["a"][:, 1] > 0) ^ (x["b"][:, 1] > 0)], axis=1).astype(np.float32)
    there = {m: np.ones(n, bool) for m in x}
    return EmbeddingTable(x, there, np.arange(n), np.arange(n), labels, NAMES, np.arange(n))


@pytest.fixture
def tables(rng):
    return {k: table(rng, n) for k, n in (("train", 400), ("validation", 200), ("test", 300))}


def test_subsets_are_all_and_ordered():
    assert subsets("ab") == [("a",), ("b",), ("a", "b")]
    assert len(subsets("abcd")) == 15


def test_what_is_planted_is_found(tables):
    value = modality_value(tables, ("a", "b"), NAMES, SMALL)
    said = {k: {m: verdict(d.interval) for m, d in of.items()} for k, of in value.synergy.items()}
    assert said["in_a"]["a"] == "better" and said["in_a"]["b"] != "better"
    assert said["exclusive_or"]["a"] == said["exclusive_or"]["b"] == "better"
    assert value.interaction["exclusive_or"].interval.value > 0.25
    assert verdict(value.interaction["in_a"].interval) != "better"
    assert value.synergy["in_a"]["b"].subset == value.interaction["in_a"].subset == ("a",)
    paired = value.probes["a", "b"].replicates["in_a"] - value.probes[("a",)].replicates["in_a"]
    assert value.synergy["in_a"]["b"].interval == summarise(paired)
    assert set(value.synergy) == {MACRO, *NAMES}


def test_the_best_subset_is_that_of_validation(tables, rng):
    """Test labels dealt anew change every score and no choice."""
    before = modality_value(tables, ("a", "b"), NAMES, RECIPES["newton"])
    test = tables["test"]
    object.__setattr__(test, "labels", rng.permutation(test.labels))
    after = modality_value(tables, ("a", "b"), NAMES, RECIPES["newton"])
    assert [d.subset for d in before.interaction.values()] == [d.subset for d in after.interaction.values()]
    assert before.interaction["in_a"].interval != after.interaction["in_a"].interval
