"""Subgroups: who is in them, their AUROC against scikit-learn, and gaps."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medjax.data.manifest import Finding
from medjax.evaluation.bootstrap import patient_weights
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.subgroups import MACRO, bands, subgroups
from medjax.evaluation.zero_shot import zero_shot

N = 400


def test_ages_are_cut_at_40_60_and_80():
    groups = bands("age", np.array([12.0, 39.9, 40, 59, 60, 79.5, 80, 101, np.nan]), ())
    assert {k: np.flatnonzero(v).tolist() for k, v in groups.items()} == {
        "<40": [0, 1],
        "40-59": [2, 3],
        "60-79": [4, 5],
        ">=80": [6, 7],
    }


def test_other_numbers_are_cut_at_their_quartiles(rng):
    values = rng.normal(size=N)
    values[:10] = np.nan
    groups = bands("dose", values, ())
    assert sorted(int(g.sum()) for g in groups.values()) == [97, 97, 98, 98]
    assert np.sum(list(groups.values()), axis=0).tolist() == np.isfinite(values).astype(int).tolist()


def test_few_numbers_and_names_are_groups_of_their_own():
    values = np.array([1.0, 2, 2, np.nan])
    assert list(bands("site", values, ())) == ["1", "2"]
    named = bands("sex", np.array([1.0, 0, 1, np.nan]), ("male", "female", "other"))
    assert {k: v.sum() for k, v in named.items()} == {"male": 1, "female": 2}


@pytest.fixture
def scored(rng):
    """The finding is plain in one sex and invisible in the other; ages say nothing."""
    labels = (rng.random((N, 1)) < 0.4).astype(np.float32)
    sex = (np.arange(N) // 2 % 2).astype(np.float32)
    age = np.where(np.arange(N) < 6, 85, 50).astype(np.float32)
    image = rng.normal(size=(N, 2)).astype(np.float32)
    image[:, 0] += np.where(sex == 1, 3, 0) * labels[:, 0]
    there = {"image": np.ones(N, bool)}
    attributes = {"sex": sex, "age": age, "same": np.ones(N, np.float32)}
    table = EmbeddingTable(
        {"image": image}, there, np.arange(N) // 2, np.arange(N), labels, ("a",), np.arange(N), attributes=attributes
    )
    axis = np.eye(2, dtype=np.float32)[:1]
    finding = {"a": Finding(("yes",), ("no",))}
    score = zero_shot(table, {"a": (axis, -axis)}, finding, lambda q, c, t, p: q["image"] @ c.T, 50)
    return table, score


def run(scored, least=10):
    table, result = scored
    found = subgroups(table, result, {"sex": ("male", "female")}, patient_weights(table.patients, 50), least)
    return {s.attribute: s for s in found}


def test_each_group_is_scored_on_its_own(scored):
    table, result = scored
    found = run(scored)["sex"]
    scores, truth, sex = result.findings[0].scores, table.labels[:, 0], table.attributes["sex"]
    areas = {g: roc_auc_score(truth[sex == k], scores[sex == k]) for k, g in enumerate(("male", "female"))}
    assert {g: i.value for g, i in found.auroc["a"].items()} == pytest.approx(areas)
    gap = found.gaps["a"]
    assert gap.interval.value == pytest.approx(areas["female"] - areas["male"])
    assert gap.interval.low > gap.by_chance  # a planted difference
    assert found.gaps[MACRO] == gap and found.examples == {"male": 200, "female": 200}


def test_groups_of_too_few_are_listed_and_not_scored(scored):
    found = run(scored)["age"]
    assert list(found.auroc["a"]) == ["40-59"] and not found.gaps and MACRO not in found.auroc
    assert ">=80" in found.skipped["a"] and "at least 10 of each" in found.skipped["a"][">=80"]


def test_attributes_of_one_value_are_left_out(scored):
    assert set(run(scored)) == {"sex", "age"}


def test_groups_that_mean_nothing_have_the_gap_of_chance(scored):
    table, _ = scored
    sexes = table.attributes["sex"]
    table.attributes["sex"] = np.random.default_rng(7).permutation(sexes[::2]).repeat(2)
    gap = run(scored)["sex"].gaps["a"]
    # Both are gaps of two areas from about 80 against 120 studies, whose difference has a standard error near 0.05.
    assert gap.interval.value < 0.2 and 0 < gap.by_chance < 0.1
