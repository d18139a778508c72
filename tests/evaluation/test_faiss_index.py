"""What FAISS finds, beside exact search in NumPy."""

import sys

import numpy as np
import pytest

from medjax.errors import UserError
from medjax.evaluation.faiss_index import found_share, nearest


@pytest.fixture
def data(rng):
    gallery = rng.normal(size=(600, 16)).astype(np.float32)
    return gallery[:40] + rng.normal(size=(40, 16)).astype(np.float32), gallery


@pytest.mark.parametrize("description", ["Flat", "HNSW32", "IVF8,Flat"])
def test_found_share_is_the_overlap_with_exact_search(data, description):
    pytest.importorskip("faiss")
    queries, gallery = data
    exact = np.argsort(-(queries.astype(np.float64) @ gallery.T), axis=1)[:, :10]
    found = nearest(queries, gallery, 10, description)
    expected = [len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]
    shares = found_share(queries, gallery, 10, description)
    np.testing.assert_allclose(shares, expected)
    # All of them, most of them, and those of one cell in eight.
    low, high = {"Flat": (1, 1), "HNSW32": (0.9, 1), "IVF8,Flat": (0.1, 0.9)}[description]
    assert low <= shares.mean() <= high


def test_equal_scores_count_as_equally_near(data):
    pytest.importorskip("faiss")
    queries, gallery = data
    np.testing.assert_array_equal(found_share(queries, np.repeat(gallery[:5], 4, axis=0), 6, "Flat"), 1)


def test_a_small_gallery_is_searched_whole(data):
    pytest.importorskip("faiss")
    queries, gallery = data
    np.testing.assert_array_equal(found_share(queries, gallery[:4], 10, "Flat"), 1)


def test_what_faiss_cannot_do_is_said_in_a_line(data):
    pytest.importorskip("faiss")
    queries, gallery = data
    with pytest.raises(UserError, match="FAISS cannot build 'Graph9' of 600 candidates: could not parse"):
        nearest(queries, gallery, 10, "Graph9")
    with pytest.raises(UserError, match="'IVF700,Flat' of 600 candidates: Number of training points"):
        nearest(queries, gallery, 10, "IVF700,Flat")


def test_without_faiss_the_message_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="pip install faiss-cpu"):
        nearest(*data, 10, "Flat")
