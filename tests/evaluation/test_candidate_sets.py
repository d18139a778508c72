"""Ten candidates: drawn evenly from other patients with other texts, the same for everybody, chance at a tenth."""

import numpy as np
import pytest
from scipy.stats import chisquare

from medjax.evaluation.candidate_sets import candidate_accuracy, draw_candidates
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.joint import mean


def table(rng, n=60, texts=None, embeddings=None, has_text=None) -> EmbeddingTable:
    embeddings = embeddings or {m: rng.normal(size=(n, 8)).astype(np.float32) for m in ("image", "text")}
    present = {m: np.ones(n, bool) for m in embeddings}
    present["text"] = np.ones(n, bool) if has_text is None else has_text
    texts = np.arange(n) if texts is None else texts
    return EmbeddingTable(embeddings, present, np.arange(n) // 2, texts, np.zeros((n, 0)), (), np.arange(n) + 100)


def test_candidates_are_of_other_patients_with_other_texts(rng):
    t = table(rng, texts=rng.integers(0, 15, 60))
    sets = draw_candidates(t, seed=3)
    np.testing.assert_array_equal(sets.candidates[:, 0], sets.queries)
    for row in sets.candidates:
        assert len(set(row)) == 10
        assert not (t.patients[row[1:]] == t.patients[row[0]]).any()
        assert not (t.texts[row[1:]] == t.texts[row[0]]).any()
    assert sets.digest == draw_candidates(t, seed=3).digest != draw_candidates(t, seed=4).digest


def test_every_candidate_that_may_be_drawn_is_as_likely(rng):
    t = table(rng, n=16)
    counts = sum(np.bincount(draw_candidates(t, seed=s).candidates[0, 1:], minlength=16) for s in range(400))
    assert counts[:2].sum() == 0 and chisquare(counts[2:]).pvalue > 1e-3


def test_studies_without_enough_others_are_left_out_and_counted(rng):
    texts = np.concatenate([np.zeros(52, int), np.arange(1, 9)])  # eight others at most for the first
    sets = draw_candidates(table(rng, texts=texts))
    assert sets.left_out == 52 and sets.queries.tolist() == list(range(52, 60))


def test_studies_without_a_text_do_not_share_one(rng):
    has = np.arange(60) >= 40
    sets = draw_candidates(table(rng, texts=np.where(has, np.arange(60), 0), has_text=has))
    assert sets.left_out == 0


def test_accuracy_equals_a_loop_over_queries_and_ties_share_the_point(rng):
    x = rng.integers(-2, 3, (60, 3)).astype(np.float32)
    t = table(rng, embeddings={"image": x, "text": rng.integers(-2, 3, (60, 3)).astype(np.float32)})
    sets = draw_candidates(t)
    expected = []
    for query, offered in zip(sets.queries, sets.candidates, strict=True):
        scores = t.embeddings["text"][offered].astype(np.float64) @ x[query]
        expected.append((scores[0] == scores.max()) / (scores == scores.max()).sum())
    found = candidate_accuracy(t, ("image",), "text", mean, sets)
    assert found.accuracy.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert any(0 < x < 1 for x in expected)  # some points are shared
    assert found.as_dict()["candidate_list_sha256"] == sets.digest


def test_constant_embeddings_are_exactly_at_chance(rng):
    t = table(rng, embeddings={m: np.ones((60, 4), np.float32) for m in ("image", "text")})
    assert candidate_accuracy(t, ("image",), "text", mean, draw_candidates(t)).accuracy.value == pytest.approx(0.1)
