"""Search over eight devices is the search of NumPy, ties and all."""

import numpy as np
import pytest

from medjax.errors import UserError
from medjax.evaluation import metrics
from medjax.evaluation.search import ranks, top_k
from medjax.losses.similarity import product


def whole(rng, n: int, e: int = 3) -> np.ndarray:
    """Small whole numbers: many equal scores, and none that depends on the order of a sum."""
    return rng.integers(-2, 3, (n, e)).astype(np.float32)


@pytest.mark.parametrize(("n", "g", "k", "block"), [(37, 1001, 10, 64), (3, 70, 70, 16), (130, 500, 5, 64)])
def test_the_best_are_those_of_a_stable_sort(rng, n, g, k, block):
    queries, gallery = whole(rng, n), whole(rng, g)
    scores = queries @ gallery.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found, index = top_k(queries, gallery, k, block)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(found, np.take_along_axis(scores, expected, axis=1))


def test_zeros_of_both_signs_are_equal():
    gallery = np.array([[0.0], [-0.0], [0.0], [-1.0]], np.float32)
    assert top_k(np.array([[-1.0]], np.float32), gallery, 4)[1].tolist() == [[3, 0, 1, 2]]
    assert top_k(np.array([[1.0]], np.float32), gallery, 4)[1].tolist() == [[0, 1, 2, 3]]


def test_another_score_and_a_tree_of_queries(rng):
    a, b, gallery = whole(rng, 5), whole(rng, 5), whole(rng, 90)

    def score(queries, candidates):
        return product(queries["a"], candidates) - product(queries["b"], candidates) ** 2

    expected = np.argsort(-(a @ gallery.T - (b @ gallery.T) ** 2), axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(top_k({"a": a, "b": b}, gallery, 4, score=score)[1], expected)


@pytest.mark.parametrize("k", [0, 91])
def test_more_than_there_are_cannot_be_asked_for(rng, k):
    with pytest.raises(UserError, match="between 1 and the 90 candidates"):
        top_k(whole(rng, 2), whole(rng, 90), k)


@pytest.mark.parametrize("at_once", [1, 2**24])
def test_ranks_counted_in_blocks_are_those_of_all_scores(rng, at_once):
    queries, gallery = whole(rng, 200), whole(rng, 300)
    mine, theirs = rng.integers(0, 20, 200), np.concatenate([np.arange(20), rng.integers(0, 20, 280)])
    expected = metrics.ranks((queries @ gallery.T).astype(np.float64), mine[:, None] == theirs[None, :])
    np.testing.assert_array_equal(ranks(product, queries, gallery, mine, theirs, at_once), expected)
    assert (expected % 1 == 0.5).any()  # half places, from ties


def test_no_more_scores_lie_in_memory_than_were_asked_for(rng):
    sizes = []

    def score(queries, candidates):
        sizes.append(queries.shape[0])
        return product(queries, candidates)

    ranks(score, whole(rng, 640), whole(rng, 512), np.arange(640) % 512, np.arange(512), at_once=128 * 512)
    assert sizes == [128] * 5
