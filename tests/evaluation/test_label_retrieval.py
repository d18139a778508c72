"""Precision by label equals scikit-learn and a loop over queries; chance equals random orders."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.label_retrieval import chance_average_precision, label_retrieval, rank_metrics


def table(rng, n=60, labels=None, patients=None, present=None) -> EmbeddingTable:
    embeddings = {m: rng.normal(size=(n, 8)).astype(np.float32) for m in ("image", "ecg")}
    present = {m: np.ones(n, bool) for m in embeddings} | (present or {})
    patients = np.arange(n) // 3 if patients is None else patients
    labels = (rng.random((n, 3)) < 0.3).astype(np.float32) if labels is None else labels
    return EmbeddingTable(embeddings, present, patients, np.arange(n), labels, ("a", "b", "c"), np.arange(n))


def by_hand(t: EmbeddingTable, query: str, target: str, keep: bool, label: int | None):
    """Mean (P@5, R-precision, average precision) over the queries that have an answer, in float64, one by one."""
    out = []
    for i in range(len(t)):
        own = t.labels[i] == 1
        asks = own.any() if label is None else own[label]
        if not t.present[query][i] or not asks:
            continue
        known = ~np.isnan(t.labels) if label is None else ~np.isnan(t.labels[:, [label]])
        counted = t.present[target] & known.any(axis=1) & (np.arange(len(t)) != i)
        if not keep:
            counted &= t.patients != t.patients[i]
        rows = np.flatnonzero(counted)
        scores = t.embeddings[target][rows].astype(np.float64) @ t.embeddings[query][i].astype(np.float64)
        right = ((t.labels[rows] == 1) & own).any(axis=1) if label is None else t.labels[rows, label] == 1
        if right.any():
            sorted_ = right[np.argsort(-scores)]
            out.append((sorted_[:5].mean(), sorted_[: right.sum()].mean(), average_precision_score(right, scores)))
    return len(out), np.mean(out, axis=0)


@pytest.mark.parametrize("keep", [False, True])
def test_every_direction_equals_a_loop_over_queries(rng, keep):
    labels = (rng.random((60, 3)) < 0.25).astype(np.float32)
    labels[rng.random((60, 3)) < 0.2] = np.nan
    t = table(rng, labels=labels, present={"ecg": rng.random(60) < 0.8})
    results = label_retrieval(t, keep_patient=keep, replicates=0)
    assert [r.name for r in results] == ["image_to_image", "image_to_ecg", "ecg_to_image", "ecg_to_ecg"]
    for r in results:
        for label, found in [(None, r.shared), *enumerate(r.labels.values())]:
            queries, expected = by_hand(t, r.query, r.target, keep, label)
            values = [found.values[m].value for m in ("precision@5", "r_precision", "map")]
            assert found.queries == queries
            np.testing.assert_allclose(values, expected, atol=1e-12)
        for m, interval in r.macro.items():
            assert interval.value == pytest.approx(np.mean([p.values[m].value for p in r.labels.values()]))


def test_metrics_of_one_order_by_hand():
    relevant = np.array([[True, False, True, True, False]])
    counted = np.array([[True, True, False, True, True]])
    found = rank_metrics(relevant, counted, cuts=(1, 3))
    assert (found["precision@1"][0], found["precision@3"][0]) == (1, 2 / 3)  # the third that counts is the fourth
    assert found["r_precision"][0] == 1 / 2 and found["average_precision"][0] == pytest.approx((1 + 2 / 3) / 2)
    assert (found["right"][0], found["candidates"][0]) == (2, 4)


def test_chance_is_what_random_orders_reach(rng):
    right, candidates = np.array([1, 3, 9, 20]), np.array([1, 7, 40, 20])
    for r, n, expected in zip(right, candidates, chance_average_precision(right, candidates), strict=True):
        orders = np.argsort(rng.random((4000, n)), axis=1) < r
        values = rank_metrics(orders, np.ones_like(orders))["average_precision"]
        assert abs(values.mean() - expected) <= 4 * values.std() / 4000**0.5 + 1e-12


def test_a_patient_is_not_found_again_unless_asked_for(rng):
    t = table(rng, labels=np.tile(np.eye(20, 3, dtype=np.float32), (1, 1)).repeat(3, axis=0))
    t.embeddings["image"][:] = np.eye(20, 8, dtype=np.float32).repeat(3, axis=0)
    for keep, found in ((True, 1.0), (False, None)):
        (only,) = [r for r in label_retrieval(t, across=False, keep_patient=keep) if r.query == "image"] or [None]
        # Of each label there is one patient alone: with its own studies left out nobody has an answer.
        assert (only and only.shared.values["r_precision"].value) == found


def test_cuts_end_where_the_gallery_does(rng):
    labels = np.ones((12, 3), np.float32)
    labels[:, 2] = 0
    (image, _) = label_retrieval(table(rng, 12, labels=labels, patients=np.arange(12)), across=False)
    assert [m for m in image.shared.values if "@" in m] == ["precision@1", "precision@5", "precision@10"]
    assert image.shared.candidates == 11 and image.shared.values["map"].value == 1 == image.shared.chance["map"]
    assert image.skipped == {"c": "no query that is positive has a positive candidate"}


def test_without_labels_there_is_no_result(rng):
    assert label_retrieval(table(rng, labels=np.full((60, 3), np.nan, np.float32))) == []
