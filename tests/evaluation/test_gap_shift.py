"""Moving two modalities along their gap: by hand, and where what it does is known."""

import numpy as np
import pytest

from medjax.data.manifest import Finding
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.gap_shift import gap_vector, shift_pair
from medjax.evaluation.geometry import unit
from medjax.evaluation.metrics import auroc


def table(embeddings, present=None, labels=None) -> EmbeddingTable:
    n = len(next(iter(embeddings.values())))
    present = {m: np.ones(n, bool) for m in embeddings} | (present or {})
    labels = np.zeros((n, 1), np.float32) if labels is None else labels
    return EmbeddingTable(embeddings, present, np.arange(n), np.arange(n), labels, ("sick",), np.arange(n))


def test_the_gap_is_that_of_the_studies_with_both(rng):
    x, y = rng.normal(size=(2, 9, 4)).astype(np.float32)
    has = np.arange(9) < 7
    gap = gap_vector(table({"image": x, "text": y}, {"text": has}), "image", "text")
    means = [(v[:7] / np.linalg.norm(v[:7], axis=1, keepdims=True)).mean(axis=0) for v in (x, y)]
    np.testing.assert_allclose(gap, means[0] - means[1], atol=1e-6)
    assert gap_vector(table({"image": x, "text": y}, {"text": has & ~has}), "image", "text") is None


def test_scores_are_those_of_the_moved_embeddings(rng):
    n = 40
    x, y, gap = rng.normal(size=(n, 6)), rng.normal(size=(n, 6)), rng.normal(size=6)
    y += x
    labels = (rng.random((n, 1)) < 0.5).astype(np.float32)
    prompts = {"sick": (rng.normal(size=(2, 6)).astype(np.float32), rng.normal(size=(1, 6)).astype(np.float32))}
    findings = {"sick": Finding(positive=("a", "b"), negative=("c",), seen_in=("image",))}
    t = table({"image": x.astype(np.float32), "text": y.astype(np.float32)}, labels=labels)
    for p in shift_pair(t, "image", "text", gap, (-0.5, 0.0, 0.7), prompts, findings):
        moved_x, moved_y = unit(unit(x) - p.shift * gap), unit(unit(y) + p.shift * gap)
        scores = moved_x @ moved_y.T
        for name, s in (("image_to_text", scores), ("text_to_image", scores.T)):
            place = 1 + (s > np.diag(s)[:, None]).sum(axis=1)
            assert p.recall[name].value == pytest.approx(np.mean(place <= 10))
            assert p.chance[name] == pytest.approx(0.25)
        present, absent = (moved_x @ unit(unit(q) + p.shift * gap).T for q in prompts["sick"])
        expected = auroc(present.mean(axis=1) - absent.mean(axis=1), labels[:, 0] == 1, np.ones((1, n)))[0]
        assert p.auroc.value == pytest.approx(expected)


def test_a_gap_that_hides_the_pairs_is_closed_at_a_half(rng):
    """A constant apart between two equal clouds: an inner product does not mind it, until lengths are one."""
    direction = np.eye(8)[0]
    x = unit(np.concatenate([np.zeros((60, 1)), rng.normal(size=(60, 7))], axis=1))
    image, text = unit(0.1 * x + direction), unit(0.1 * x - direction)
    t = table({"image": image.astype(np.float32), "text": text.astype(np.float32)})
    gap = gap_vector(t, "image", "text")
    (closed,) = shift_pair(t, "image", "text", gap, (0.5,), {}, {})
    assert closed.recall["image_to_text"].value == 1 and closed.auroc is None


def test_findings_of_other_modalities_are_not_asked_of_this_one(rng):
    x, y = rng.normal(size=(2, 20, 4)).astype(np.float32)
    prompts = {"sick": (x[:1], y[:1])}
    findings = {"sick": Finding(positive=("a",), negative=("b",), seen_in=("ecg",))}
    labels = np.tile([[0.0], [1.0]], (10, 1)).astype(np.float32)
    t = table({"image": x, "text": y}, labels=labels)
    (there,) = shift_pair(t, "image", "text", np.zeros(4), (0.0,), prompts, findings)
    assert there.auroc is None
