"""Scores that are taken again: on the intact table they are those of the other evaluations."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from medjax.data.manifest import Finding
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.missing import without
from medjax.evaluation.probe import joined_features, linear_probe
from medjax.evaluation.retrieval import joint_retrieval, pairwise_retrieval
from medjax.evaluation.robustness_scores import (
    class_score,
    joint_score,
    labels_of,
    probe_judge,
    retrieval_score,
    seen,
    zero_shot_judge,
)
from medjax.evaluation.zero_shot import zero_shot

FINDINGS = {
    "effusion": Finding(("a",), ("b",), seen_in=("image",)),
    "fibrillation": Finding(("a",), ("b",), seen_in=("ecg",)),
    "both": Finding(("a",), ("b",), seen_in=("image", "ecg"), joint=True),
}


def product(queries, candidates, target, present):
    """The mean inner product over the modalities that are present."""
    total = sum(np.where(present[m], 1.0, 0.0)[:, None] * (np.asarray(x) @ candidates.T) for m, x in queries.items())
    return total / np.maximum(sum(np.asarray(present[m], float) for m in queries), 1)[:, None]


def table_of(seed: int, n: int = 160) -> EmbeddingTable:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < 0.4).astype(np.float32)
    labels[rng.random((n, 3)) < 0.1] = np.nan
    embeddings = {m: rng.normal(size=(n, 8)).astype(np.float32) for m in ("ecg", "image", "text")}
    embeddings["image"][:, 0] += 2 * np.nan_to_num(labels[:, 0])
    embeddings["ecg"][:, 1] += 2 * np.nan_to_num(labels[:, 1])
    embeddings["text"] += embeddings["image"] + embeddings["ecg"]
    present = {m: rng.random(n) < 0.9 for m in embeddings}
    rows = np.arange(n)
    return EmbeddingTable(embeddings, present, rows // 2, rows, labels, tuple(FINDINGS), rows)


@pytest.fixture(scope="module")
def tables() -> dict[str, EmbeddingTable]:
    return {k: table_of(i) for i, k in enumerate(("train", "validation", "test"))}


@pytest.fixture(scope="module")
def prompts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    basis = np.eye(8, dtype=np.float32)
    return {k: (basis[i : i + 1], -basis[i : i + 1]) for i, k in enumerate(FINDINGS)}


def test_labels_are_those_that_the_modalities_show():
    names = (*FINDINGS, "free")
    assert labels_of(names, FINDINGS, ("image",)) == ("effusion", "free")
    assert labels_of(names, FINDINGS, ("image", "ecg")) == ("effusion", "fibrillation", "free")


def test_intact_zero_shot_is_that_of_the_evaluation(tables, prompts):
    both, table = ("ecg", "image"), tables["test"]
    judge = zero_shot_judge(prompts, FINDINGS, product, both)
    labels = labels_of(tuple(FINDINGS), FINDINGS, both)
    score = class_score("zero-shot", judge, labels, table, tables["validation"], partial(seen, FINDINGS, both))
    expected = zero_shot(table, prompts, FINDINGS, product)
    np.testing.assert_allclose(score.measure(table)[0], expected.macro_replicates, atol=1e-12)
    assert score.labels == ("effusion", "fibrillation") and score.chance == 0.5
    assert 0 < score.measure(table)[1][0] < 0.5


def test_intact_probe_is_that_of_the_evaluation_and_is_not_fitted_again(tables):
    both, table = ("ecg", "image"), tables["test"]
    judge = probe_judge(tables["train"], tables["validation"], tuple(FINDINGS), both)
    known = lambda t, k: ~np.isnan(t.labels[:, t.label_names.index(k)])  # noqa: E731
    score = class_score("probe", judge, tuple(FINDINGS), table, tables["validation"], known)
    expected = linear_probe({k: joined_features(t, both) for k, t in tables.items()}, tuple(FINDINGS))
    np.testing.assert_allclose(score.measure(table)[0], expected.macro_replicates, atol=1e-9)
    noise = np.random.default_rng(0).normal(size=(160, 8)).astype(np.float32)
    worse = replace(table, embeddings=table.embeddings | {"image": noise})
    assert score.measure(worse)[0][0] < score.measure(table)[0][0] - 0.1


def test_the_same_examples_count_however_damaged(tables, prompts):
    """A finding whose modality is taken away falls to chance; it does not leave the mean."""
    both = ("ecg", "image")
    table = tables["test"].where(tables["test"].all_present(both))
    judge = zero_shot_judge(prompts, FINDINGS, product, both)
    score = class_score("zero-shot", judge, ("effusion",), table, None, partial(seen, FINDINGS, both))
    assert score.measure(table)[0][0] > 0.8
    assert abs(score.measure(without(table, both, ("ecg",)))[0][0] - 0.5) < 0.12
    assert score.measure(without(table, both, ()))[0][0] == 0.5
    assert score.thresholds == {"effusion": 0.0}


def test_a_label_of_one_class_is_listed(tables, prompts):
    labels = tables["test"].labels.copy()
    labels[:, 1] = 0
    table = replace(tables["test"], labels=labels)
    judge = zero_shot_judge(prompts, FINDINGS, product, ("ecg", "image"))
    counted = partial(seen, FINDINGS, ("ecg", "image"))
    score = class_score("zero-shot", judge, ("effusion", "fibrillation"), table, None, counted)
    assert score.labels == ("effusion",) and score.skipped == {"fibrillation": "one class only in the split"}
    assert class_score("zero-shot", judge, ("fibrillation",), table, None, counted) is None


def test_recall_is_that_of_the_evaluation(tables):
    table = tables["test"]
    pair = {r.name: r for r in pairwise_retrieval(table)}["image_to_text"]
    score = retrieval_score("by the image", table, "image", ["text"])
    np.testing.assert_allclose(score.measure(table)[0], pair.recall_replicates[10], atol=1e-12)
    assert score.chance == pytest.approx(pair.chance_recall[10])


def test_joint_recall_by_a_subset_is_that_of_the_subset(tables):
    table = tables["test"].where(tables["test"].all_present(("ecg", "image", "text")))
    score = joint_score("report", table, "text", ("ecg", "image"), product)
    for kept in (("ecg", "image"), ("ecg",), ("image",)):
        expected = joint_retrieval(table, "text", product, kept).recall_replicates[10]
        np.testing.assert_allclose(score.measure(without(table, ("ecg", "image"), kept))[0], expected, atol=1e-12)
