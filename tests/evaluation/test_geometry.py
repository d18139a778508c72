"""Measures of geometry equal loops over pairs in float64, and spaces whose shape is known."""

import numpy as np
import pytest

from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.geometry import (
    effective_rank,
    mean_over_pairs,
    modality_geometry,
    pair_geometry,
    separability,
    uniformity,
    unit,
)


def table(rng, n=24, e=5, patients=None, texts=None, present=None, offset=0.0) -> EmbeddingTable:
    shared = rng.normal(size=(n, e))
    embeddings = {m: (shared + rng.normal(size=(n, e))).astype(np.float32) for m in ("image", "text")}
    embeddings["image"] += offset
    present = {m: np.ones(n, bool) for m in embeddings} | (present or {})
    patients = np.arange(n) // 2 if patients is None else patients
    texts = np.arange(n) if texts is None else texts
    return EmbeddingTable(embeddings, present, patients, texts, np.zeros((n, 0)), (), np.arange(n))


def length_one(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).sum(axis=1, keepdims=True))


def test_a_pair_of_modalities_equals_loops_over_its_studies(rng):
    t = table(rng, texts=rng.integers(0, 8, 24), present={"text": np.arange(24) != 5}, offset=0.5)
    found = pair_geometry(t, replicates=0)[("image", "text")]
    kept = [i for i in range(24) if i != 5]
    x, y = (length_one(t.embeddings[m]) for m in ("image", "text"))
    apart = [x[i] @ y[j] for i in kept for j in kept if t.patients[i] != t.patients[j] and t.texts[i] != t.texts[j]]
    own = [x[i] @ y[i] for i in kept]
    expected = {
        "alignment": np.mean([np.sum((x[i] - y[i]) ** 2) for i in kept]),
        "modality_gap": np.sqrt(np.sum((x[kept].mean(axis=0) - y[kept].mean(axis=0)) ** 2)),
        "pair_cosine": np.mean(own),
        "non_pair_cosine": np.mean(apart),
        "contrastive_gap": np.mean(own) - np.mean(apart),
    }
    assert found.studies == 23
    for name, value in expected.items():
        assert found.values[name].value == pytest.approx(value, abs=1e-12), name


def test_uniformity_equals_a_loop_over_pairs(rng):
    t = table(rng)
    found = modality_geometry(t, replicates=0)["image"]
    x = length_one(t.embeddings["image"])
    kernel = [np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(24) for j in range(24) if i != j]
    assert found.uniformity.value == pytest.approx(np.log(np.mean(kernel)), abs=1e-12)


def test_a_replicate_is_the_value_of_the_studies_that_it_drew(rng):
    """Without the pairs of a study with its own copy, which are no pairs."""
    x, weights = unit(rng.normal(size=(6, 4))), np.array([[2.0, 0, 1, 3, 0, 1]])
    drawn = np.repeat(np.arange(6), weights[0].astype(int))
    kernel = [np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in drawn for j in drawn if i != j]
    assert uniformity(x, weights)[0] == pytest.approx(np.log(np.mean(kernel)), abs=1e-12)
    assert np.isnan(mean_over_pairs(np.ones((2, 2)), np.zeros((2, 2), bool), np.ones((1, 2)))[0])


def test_known_shapes(rng):
    assert uniformity(np.ones((9, 1)), np.ones((1, 9)))[0] == 0  # all in one place: the worst there is
    np.testing.assert_allclose(effective_rank(np.eye(7)), 7, atol=1e-12)
    np.testing.assert_allclose(effective_rank(np.outer(rng.normal(size=9), rng.normal(size=5))), 1, atol=1e-6)
    # p = (3/4, 1/4): exp(3/4 log 4/3 + 1/4 log 4).
    np.testing.assert_allclose(effective_rank(np.diag([3.0, 1.0])), 4 / 3**0.75, atol=1e-12)
    assert effective_rank(np.zeros((3, 3))) == 0


def test_separability_is_one_of_clouds_apart_and_a_half_of_one_cloud(rng):
    x, y = rng.normal(size=(2, 300, 4))
    patients = np.arange(300) // 2
    assert separability(x, y + 10, patients).mean() == 1
    assert abs(separability(x, y, patients).mean() - 0.5) < 4 * 0.5 / 600**0.5
    assert separability(x, y, np.zeros(300, int)) is None


def test_separability_is_not_learnt_from_the_patient_it_is_asked_of(rng):
    """Two embeddings of each patient that are the same but for the patient's own secret: nothing carries over."""
    x = np.repeat(rng.normal(size=(30, 60)), 10, axis=0)
    flip = np.repeat(rng.choice([-1, 1], size=30), 10)[:, None] * 0.1
    assert separability(x + flip, x - flip, np.arange(300) // 10).mean() < 0.75


def test_what_cannot_be_measured_is_left_out(rng):
    t = table(rng, present={"text": np.arange(24) == 3})
    assert list(modality_geometry(t, replicates=0)) == ["image"] and pair_geometry(t, replicates=0) == {}
    t.embeddings["text"] = t.embeddings["text"][:, :3]
    t.present["text"][:] = True
    assert pair_geometry(t, replicates=0) == {}
