"""Paired comparisons: against one replicate at a time with scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medjax.data.manifest import Finding
from medjax.evaluation.bootstrap import patient_weights
from medjax.evaluation.compare import compare, same_examples
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.zero_shot import zero_shot

N, REPLICATES = 60, 40
FINDINGS = {
    "a": Finding(("yes",), ("no",)),
    "b": Finding(("yes",), ("no",)),
    "joint": Finding(("yes",), ("no",), (), True),
}


@pytest.fixture
def table(rng):
    image = rng.normal(size=(N, 3)).astype(np.float32)
    labels = (image + rng.normal(size=(N, 3)) > 0).astype(np.float32)
    there = {"image": np.ones(N, bool)}
    return EmbeddingTable(
        {"image": image}, there, np.arange(N) // 3, np.arange(N), labels, tuple(FINDINGS), np.arange(N)
    )


def scored(table):
    axes = np.eye(3, dtype=np.float32)
    prompts = {k: (axes[i : i + 1], -axes[i : i + 1]) for i, k in enumerate(FINDINGS)}
    return zero_shot(table, prompts, FINDINGS, lambda q, c, t, p: q["image"] @ c.T, replicates=0)


def worse(table, rng, noise=1.0):
    x = table.embeddings["image"]
    return replace(table, embeddings={"image": x + noise * rng.normal(size=x.shape).astype(np.float32)})


def test_differences_are_those_of_the_same_drawn_patients(table, rng):
    other = worse(table, rng)
    found = compare(scored(table), scored(other), table, REPLICATES)
    differences = []
    for times in patient_weights(table.patients, REPLICATES).astype(int):
        y = np.repeat(table.labels, times, axis=0)
        pair = [np.repeat(t.embeddings["image"], times, axis=0) for t in (table, other)]
        differences.append(
            [roc_auc_score(y[:, k], pair[0][:, k]) - roc_auc_score(y[:, k], pair[1][:, k]) for k in (0, 1)]
        )
    a, macro = np.array(differences)[:, 0], np.mean(differences, axis=1)
    for d, values in ((found.findings["a"], a), (found.macro, macro)):
        expected = [values[0], *np.percentile(values[1:], (2.5, 97.5))]
        np.testing.assert_allclose([d.gain.value, d.gain.low, d.gain.high], expected, rtol=1e-9)
        assert d.gain.value == pytest.approx(d.own.value - d.other.value)


def test_a_model_is_no_better_than_itself_and_better_than_noise(table, rng):
    own = scored(table)
    same = compare(own, own, table, REPLICATES).macro
    assert (same.gain.low, same.gain.high) == (0, 0) and same.verdict == "not resolvable on this data"
    assert compare(own, scored(worse(table, rng, 50)), table, REPLICATES).macro.verdict == "better"


def test_only_what_counts_for_both_is_compared_and_what_is_skipped_is_listed(table):
    part = replace(table, present={"image": np.arange(N) >= 12}, labels=table.labels.copy())
    part.labels[:, 1] = 0
    found = compare(scored(table), scored(part), table, REPLICATES)
    assert found.findings["a"].examples == N - 12
    assert found.skipped == {"b": "of the other model: no positive example in the split"}


def test_the_same_examples_are_told_by_their_ids_else_by_rows_and_labels(table, rng):
    assert same_examples(table, worse(table, rng))
    assert not same_examples(table, table.where(np.arange(N - 1)))
    assert not same_examples(table, replace(table, labels=1 - table.labels))
    ids = rng.integers(0, 9, (N, 2)).astype(np.uint32)
    assert same_examples(replace(table, ids=ids), replace(table, ids=ids.copy(), labels=1 - table.labels))
    assert not same_examples(replace(table, ids=ids), replace(table, ids=ids[::-1]))
