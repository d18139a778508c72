"""Retrieval: perfect embeddings are first, random ones at chance, equal reports are one answer."""

import numpy as np
import pytest

from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.retrieval import joint_retrieval, pairwise_retrieval, statement_retrieval


def table(embeddings, present=None, texts=None, patients=None, labels=None) -> EmbeddingTable:
    n = len(next(iter(embeddings.values())))
    present = {m: np.ones(n, bool) for m in embeddings} | (present or {})
    patients = np.arange(n) if patients is None else patients
    labels = np.zeros((n, 1), np.float32) if labels is None else labels
    texts = np.arange(n) if texts is None else texts
    return EmbeddingTable(embeddings, present, patients, texts, labels, ("sick",), np.arange(n))


def unit(rng, n=40, e=16) -> np.ndarray:
    x = rng.normal(size=(n, e)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mean_cosine(queries, candidates, target, present):
    return sum(q @ candidates.T for q in queries.values()) / len(queries)


def product(queries, candidates, target, present):
    """The multilinear inner product."""
    return np.prod(np.stack(list(queries.values())), axis=0) @ candidates.T


def test_equal_embeddings_are_found_first(rng):
    x = unit(rng)
    results = pairwise_retrieval(table({"image": x, "text": x, "ecg": x}))
    assert sorted(r.name for r in results) == sorted(
        f"{a}_to_{b}" for a in ("image", "text", "ecg") for b in ("image", "text", "ecg") if a != b
    )
    for r in results:
        assert len(r.gallery) == 40 and r.median_rank.value == 1
        assert all((i.value, i.low, i.high) == (1, 1, 1) for i in r.recall.values())


def test_unrelated_embeddings_are_at_chance(rng):
    found = []
    for _ in range(30):
        found += pairwise_retrieval(table({"image": unit(rng), "text": unit(rng)}), replicates=0)
    for k, chance in found[0].chance_recall.items():
        assert chance == pytest.approx(k / 40)
        values = [r.recall[k].value for r in found]
        # 60 galleries of 40 queries: four standard errors.
        assert abs(np.mean(values) - chance) < 4 * (chance * (1 - chance) / 2400) ** 0.5 + 0.01
    assert found[0].chance_median_rank == 20.5


def test_identical_reports_are_the_same_answer(rng):
    texts = np.arange(40) // 4
    by_report = unit(rng, 10)[texts]
    image = by_report + 1e-3 * unit(rng)
    both = {r.name: r for r in pairwise_retrieval(table({"image": image, "text": by_report}, texts=texts))}
    # Four studies share each report and embed it alike: one place, not four.
    assert both["image_to_text"].recall[1].value == both["text_to_image"].recall[1].value == 1
    assert both["image_to_text"].chance_recall[1] == pytest.approx(0.1)


def test_a_wrong_report_that_several_studies_share_takes_one_place(rng):
    right, wrong = np.eye(2, dtype=np.float32)
    image = np.stack([right + 2 * wrong] + [right + wrong] * 12)
    text = np.stack([right] + [wrong] * 12)
    results = pairwise_retrieval(table({"image": image, "text": text}, texts=np.array([0] + [1] * 12)))
    there = next(r for r in results if r.name == "image_to_text")
    assert len(there.gallery) == 2 and list(there.candidates) == [0, 1]
    assert list(there.own) == [0] + [1] * 12
    # The first study's own report is second of two; counted by study it would be thirteenth.
    assert there.recall[5].value == 1


def test_between_pictures_and_ecgs_equal_reports_do_not_count(rng):
    texts = np.zeros(40, int)
    (there, _) = pairwise_retrieval(table({"image": unit(rng), "ecg": unit(rng)}, texts=texts))
    assert there.chance_recall[1] == pytest.approx(1 / 40)


def test_only_studies_with_both_modalities_are_queries_and_candidates(rng):
    x = unit(rng)
    has = np.arange(40) % 3 != 0
    image = np.where(has[:, None], x, 0)
    for r in pairwise_retrieval(table({"image": image, "text": x}, {"image": has})):
        assert len(r.gallery) == has.sum() and r.recall[1].value == 1
        np.testing.assert_array_equal(r.rows, np.flatnonzero(has))


@pytest.mark.parametrize("scorer", [mean_cosine, product])
def test_joint_retrieval_with_a_perfect_scorer(rng, scorer):
    a, b = (np.sign(rng.normal(size=(40, 64))).astype(np.float32) for _ in range(2))
    target = a * b if scorer is product else (a + b) / 2
    result = joint_retrieval(table({"image": a, "ecg": b, "text": target}), "text", scorer)
    assert result.query == ("image", "ecg") and result.recall[1].value == 1


def test_a_sum_cannot_find_what_the_product_tells(rng):
    a, b = (np.sign(rng.normal(size=(60, 64))).astype(np.float32) for _ in range(2))
    result = joint_retrieval(table({"image": a, "ecg": b, "text": a * b}), "text", mean_cosine)
    assert result.recall[10].value == pytest.approx(result.chance_recall[10], abs=4 * (1 / 6 * 5 / 6 / 60) ** 0.5)


@pytest.mark.parametrize("scorer", [mean_cosine, product])
def test_joint_retrieval_of_unrelated_embeddings_is_at_chance(rng, scorer):
    found = [
        joint_retrieval(table({m: unit(rng) for m in ("image", "ecg", "text")}), "text", scorer) for _ in range(10)
    ]
    # 400 queries at 10/40.
    assert np.mean([r.recall[10].value for r in found]) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 400) ** 0.5)


def test_joint_retrieval_takes_studies_that_have_all_and_a_chosen_query(rng):
    x = unit(rng)
    has = np.arange(40) % 2 == 0
    t = table({"image": x, "ecg": x, "labs": x, "text": x}, {"labs": has})
    assert joint_retrieval(t, "text", mean_cosine).gallery.shape == (20, 16)
    chosen = joint_retrieval(t, "text", mean_cosine, ("image", "ecg"))
    assert len(chosen.gallery) == 40 and chosen.name == "image+ecg_to_text"


def test_without_two_studies_there_is_no_result(rng):
    x = unit(rng, 3)
    t = table({"image": x, "text": x}, {"text": np.array([True, False, False])})
    assert pairwise_retrieval(t) == [] and joint_retrieval(t, "text", mean_cosine) is None


def statement_table(rng, n=60):
    sides = np.sign(rng.normal(size=(2, n)))
    direction = unit(rng, 2)
    image, ecg = (np.tile(s[:, None], (1, 16)).astype(np.float32) for s in sides)
    labels = (sides[0] != sides[1]).astype(np.float32)[:, None]
    prompts = -np.abs(direction[:1]), np.abs(direction[1:])
    return table({"image": image, "ecg": ecg, "text": unit(rng, n)}, labels=labels), prompts


def test_statements_are_told_apart_by_the_product_and_not_by_the_sum(rng):
    t, prompts = statement_table(rng)
    by_product = statement_retrieval(t, "sick", ("image", "ecg"), prompts, product)
    assert by_product.studies == 60 and by_product.accuracy.value == 1
    by_sum = statement_retrieval(t, "sick", ("image", "ecg"), prompts, mean_cosine)
    assert by_sum.accuracy.value < 0.9


def test_statements_that_score_the_same_are_half_right(rng):
    t, (positive, _) = statement_table(rng)
    level = statement_retrieval(t, "sick", ("image", "ecg"), (positive, positive), product)
    assert level.accuracy.value == 0.5


def test_statements_are_asked_of_studies_with_label_and_modalities(rng):
    t, prompts = statement_table(rng)
    t.labels[:10] = np.nan
    t.present["ecg"][10:30] = False
    assert statement_retrieval(t, "sick", ("image", "ecg"), prompts, product).studies == 30
    t.present["ecg"][:] = False
    assert statement_retrieval(t, "sick", ("image", "ecg"), prompts, product) is None
