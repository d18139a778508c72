"""Missing and noisy modalities: weights of subsets against simulation, and what the damage does to a table."""

import numpy as np
import pytest

from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.missing import (
    bernoulli_weights,
    expectation,
    noisy,
    randomly_missing,
    subsets,
    without,
)
from medjax.evaluation.missing_scores import missing_scores
from medjax.evaluation.robustness_scores import Score

FOUR = ("image", "ecg", "labs", "volume")


@pytest.fixture
def table(rng) -> EmbeddingTable:
    embeddings = {m: rng.normal(size=(30, 64)).astype(np.float32) for m in ("image", "ecg", "text")}
    n = np.arange(30)
    return EmbeddingTable(
        embeddings, {m: np.ones(30, bool) for m in embeddings}, n, n, np.zeros((30, 0), np.float32), (), n
    )


def test_subsets_are_all_but_the_empty_one():
    found = subsets(FOUR)
    assert found[0] == FOUR and len(found) == len(set(found)) == 15 and all(found)
    assert subsets(("image",)) == [("image",)]


@pytest.mark.parametrize(("p", "full"), [(0.2, 0.410), (0.1, 0.656), (0.05, 0.815)])
def test_the_full_input_of_four_has_the_weight_of_the_benchmark(p, full):
    assert bernoulli_weights(FOUR, p)[0] == pytest.approx(full, abs=5e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_weights_sum_to_1_for_any_number_of_modalities(n):
    for p in (0.05, 0.2, 0.7):
        np.testing.assert_allclose(bernoulli_weights(FOUR[:1] * n, p).sum(), 1, atol=1e-12)


def test_the_expectation_is_that_of_a_simulation(rng):
    names, p = FOUR[:3], 0.3
    values = {kept: np.array([rng.random()]) for kept in subsets(names)}
    there = rng.random((200_000, 3)) >= p
    drawn = [values[tuple(np.array(names)[row])][0] for row in there if row.any()]
    # The standard error of the mean of 200000 numbers in [0, 1] is below 0.0012.
    np.testing.assert_allclose(expectation(values, names, p)[0], np.mean(drawn), atol=0.005)


def test_what_is_missing_is_absent_and_zero(table):
    found = without(table, ("image", "ecg"), ("ecg",))
    assert not found.present["image"].any() and not found.embeddings["image"].any()
    assert found.present["ecg"].all() and found.present["text"].all()
    np.testing.assert_array_equal(found.embeddings["ecg"], table.embeddings["ecg"])


def test_numbers_go_missing_in_the_stated_share_and_stay_missing(table):
    found = [randomly_missing(table, ("image", "ecg"), ("ecg",), r, seed=1) for r in (0.25, 0.5, 0.75)]
    gone = [x.embeddings["image"] == 0 for x in found]
    np.testing.assert_allclose([g.mean() for g in gone], [0.25, 0.5, 0.75], atol=0.06)
    assert (gone[0] <= gone[1]).all() and (gone[1] <= gone[2]).all()
    for x in found:
        np.testing.assert_array_equal(x.embeddings["ecg"], table.embeddings["ecg"])
        norms = np.linalg.norm(table.embeddings["image"], axis=1)
        np.testing.assert_allclose(np.linalg.norm(x.embeddings["image"], axis=1), norms, rtol=1e-5)


def test_noise_turns_vectors_the_more_the_stronger_and_keeps_their_norm(table):
    before = table.embeddings["image"]
    for how in ("salt_and_pepper", "gaussian"):
        found = [noisy(table, ("image",), how, a).embeddings["image"] for a in (0.05, 0.2, 0.5)]
        cosines = [np.mean(np.sum(before * x, 1) / np.sum(before**2, 1)) for x in found]
        assert 1 > cosines[0] > cosines[1] > cosines[2]
        np.testing.assert_allclose(np.linalg.norm(found[2], axis=1), np.linalg.norm(before, axis=1), rtol=1e-5)


def test_a_score_is_taken_of_every_subset_and_averaged(table):
    """By a score that counts the modalities that are there."""

    def count(damaged: EmbeddingTable):
        value = np.array([float(sum(x.any() for x in damaged.present.values()))])
        return value, -value

    found = missing_scores(Score("count", "modalities", 0.0, count), table, ("image", "ecg", "text"))
    assert found.full == 3
    assert found.averages(found.emm)["mean"] == pytest.approx((3 + 3 * 2 + 3 * 1) / 7)
    p = 0.1  # the mean of a binomial that is not 0
    assert found.averages(found.emm)["p=0.1"] == pytest.approx(3 * (1 - p) / (1 - p**3))
    assert set(found.rmm) == {0.25, 0.5, 0.75} and set(found.nm) == {"salt_and_pepper", "gaussian"}
    assert found.as_dict()["emm"]["subsets"]["image+ecg"]["value"] == 2
