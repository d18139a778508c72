"""Sets of modalities that ask together: each rule is its formula in float64."""

import numpy as np
import pytest

from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.joint import RULES, subset_retrieval

NAMES = ("image", "ecg", "labs", "text")


def unit(rng, n: int, e: int = 6) -> np.ndarray:
    x = rng.normal(size=(n, e)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reference(rule: str, queries: list[np.ndarray], candidate: np.ndarray) -> float:
    """Of one query with one candidate."""
    if rule == "mip":
        return float(np.prod([*queries, candidate], axis=0).sum())
    if rule == "mean":
        return float(np.mean([q @ candidate for q in queries]))
    vectors = np.stack([*queries, candidate])
    return -float(np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0)))


@pytest.mark.parametrize("rule", RULES)
def test_scores_ranks_and_choices_are_those_of_the_formula(rng, rule):
    n = 30
    shared = rng.normal(size=(n, 6)).astype(np.float32)
    noisy = {m: shared + rng.normal(size=(n, 6)).astype(np.float32) for m in NAMES}
    embeddings = {m: x / np.linalg.norm(x, axis=1, keepdims=True) for m, x in noisy.items()}
    present = {m: np.ones(n + 2, bool) for m in NAMES} | {"labs": np.arange(n + 2) < n}
    padded = {m: np.concatenate([x, unit(rng, 2)]) for m, x in embeddings.items()}
    t = EmbeddingTable(padded, present, *[np.arange(n + 2)] * 2, np.zeros((n + 2, 0)), (), np.arange(n + 2))
    results = subset_retrieval(t, RULES[rule])
    assert len(results) == 4 * 7
    for name, r in results.items():
        query, target = name.split("_to_")
        asked = [embeddings[m].astype(np.float64) for m in query.split("+")]
        offered = embeddings[target].astype(np.float64)
        scores = np.array([[reference(rule, [a[i] for a in asked], c) for c in offered] for i in range(n)])
        place = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
        assert r.compared and len(r.retrieval.gallery) == n  # the two that lack a modality are in no set
        for k, recall in r.retrieval.recall.items():
            assert recall.value == pytest.approx(np.mean(place <= k))
        np.testing.assert_allclose(r.retrieval.similarities(np.arange(n)), scores, atol=2e-6)
    np.testing.assert_array_equal(r.retrieval.nearest(np.arange(4), 3), np.argsort(-scores[:4], axis=1)[:, :3])
    assert len({r.choice.digest for r in results.values()}) == 1


def test_a_rule_that_cannot_tell_is_said_so(rng):
    embeddings = {m: unit(rng, 20) for m in ("image", "text")}
    present = {m: np.ones(20, bool) for m in embeddings}
    t = EmbeddingTable(embeddings, present, *[np.arange(20)] * 2, np.zeros((20, 0)), (), np.arange(20))
    found = subset_retrieval(
        t, lambda queries, candidates, target, present: 0 * RULES["mean"](queries, candidates, target, present)
    )
    assert not any(r.compared for r in found.values())
    assert found["image_to_text"].choice.accuracy.value == pytest.approx(0.1)
