"""Search in an index is an argsort of the scores, within the filters."""

import numpy as np
import pytest

from medjax.errors import UserError
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.index_search import join, search, states


def make_table(rng, n: int, e: int = 5) -> EmbeddingTable:
    return EmbeddingTable(
        {m: rng.normal(size=(n, e)).astype(np.float32) for m in ("image", "text")},
        {"image": rng.random(n) < 0.8, "text": np.ones(n, bool)},
        *(np.arange(n) // 2, np.arange(n)),
        rng.choice([0.0, 1.0, np.nan], (n, 2)).astype(np.float32),
        ("effusion", "mass"),
        np.arange(n),
        attributes={"age": np.arange(n, dtype=np.float32)},
    )


def unit(rng, e: int = 5) -> np.ndarray:
    return rng.normal(size=e).astype(np.float32)


def test_results_are_those_of_argsort_among_the_studies_that_have_the_target(rng):
    table, query = make_table(rng, 50), unit(rng)
    found = search(table, {"text": query}, "image", 7)
    scores = np.where(table.present["image"], table.embeddings["image"].astype(np.float64) @ query, -np.inf)
    expected = np.argsort(-scores, kind="stable")[:7]
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_allclose(found.scores, scores[expected], rtol=1e-5)
    assert found.rule == "inner product" and found.matching == table.present["image"].sum()


def test_of_equal_scores_the_first_comes_first(rng):
    table = make_table(rng, 6)
    table.embeddings["text"][:] = 1.0
    assert search(table, {"text": np.ones(5, np.float32)}, "text", 4).rows.tolist() == [0, 1, 2, 3]


def test_filters_leave_what_they_keep_and_say_how_many(rng):
    table, query = make_table(rng, 60), unit(rng)
    keep = states(table, "mass") == "present"
    found = search(table, {"image": query}, "text", 60, keep)
    assert found.matching == len(found.rows) == keep.sum() > 0
    assert (table.labels[found.rows, 1] == 1).all()
    nothing = search(table, {"image": query}, "text", 5, np.zeros(60, bool))
    assert not len(nothing.rows) and nothing.matching == 0


def test_states_are_those_of_the_labels():
    labels = np.array([[1.0], [0.0], [np.nan], [0.5]], np.float32)
    table = EmbeddingTable(
        {"text": np.ones((4, 1))}, {"text": np.ones(4, bool)}, *[np.arange(4)] * 2, labels, ("a",), np.arange(4)
    )
    assert states(table, "a").tolist() == ["present", "absent", "unknown", "absent"]
    with pytest.raises(UserError, match="unknown label"):
        states(table, "b")


def test_several_parts_are_scored_by_the_encoder_or_by_their_mean(rng):
    table, a, b = make_table(rng, 40), unit(rng), unit(rng)
    both = {"ecg": a, "text": b}
    candidates = table.embeddings["image"].astype(np.float64)

    def product(queries, rows, target, present):
        assert target == "image" and all(p.all() for p in present.values())
        return (queries["ecg"] * queries["text"]) @ rows.T

    def best(scores):
        return np.argsort(-np.where(table.present["image"], scores, -np.inf), kind="stable")[:9]

    joint = search(table, both, "image", 9, scorer=product)
    assert joint.rule == "joint score" and joint.rows.tolist() == best(candidates @ (a * b)).tolist()
    mean = best(candidates @ (a + b) / 2)
    without = search(table, both, "image", 9)
    assert without.rule == "mean inner product" and without.rows.tolist() == mean.tolist()
    blind = search(table, both, "image", 9, scorer=lambda q, rows, t, p: np.zeros((1, len(rows))))
    assert blind.rule == "mean inner product" and blind.rows.tolist() == mean.tolist()


def test_the_encoders_score_is_not_asked_where_the_target_is_in_the_query(rng):
    table = make_table(rng, 10)

    def never(*_):
        raise AssertionError

    found = search(table, {"image": unit(rng), "text": unit(rng)}, "image", 3, scorer=never)
    assert found.rule == "mean inner product"


def test_without_a_query_studies_come_in_order_without_scores(rng):
    found = search(make_table(rng, 10), {}, "text", 3)
    assert found.rows.tolist() == [0, 1, 2] and np.isnan(found.scores).all() and found.rule == "none"


def test_joined_splits_keep_their_rows_and_their_patients_apart(rng):
    train, test = make_table(rng, 6), make_table(rng, 4)
    whole, split_of = join({"train": train, "test": test})
    assert split_of.tolist() == ["train"] * 6 + ["test"] * 4
    np.testing.assert_array_equal(whole.embeddings["image"][6:], test.embeddings["image"])
    assert not set(whole.patients[:6]) & set(whole.patients[6:])
    assert whole.attributes["age"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (({"text": np.ones(5, np.float32)}, "imgae", 1), "did you mean 'image'"),
        (({"text": np.ones(4, np.float32)}, "image", 1), r"shape \[4\], the index has \[5\]"),
        (({}, "image", 0), "at least one result"),
    ],
)
def test_what_cannot_be_searched_is_named(rng, arguments, match):
    with pytest.raises(UserError, match=match):
        search(make_table(rng, 5), *arguments)
