"""Parts of the training split are of whole patients, stratified, the same every time, and can be handed on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medjax.errors import UserError
from medjax.evaluation.bootstrap import average
from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.fractions import Part, draw, fraction_probe, parts, read_lists, write_lists
from medjax.evaluation.probe import Features, fit_probe
from medjax.evaluation.recipes import RECIPES

DATA = {"name": "toy", "manifest_sha256": "abc"}


@pytest.fixture
def table(rng):
    n = 600
    labels = (rng.random((n, 3)) < (0.5, 0.2, 0.03)).astype(np.float32)
    labels[rng.random((n, 3)) < 0.05] = np.nan
    ids = rng.integers(1, 2**32, (n, 2), dtype=np.uint32)
    patients = rng.permutation(np.arange(n) // 2)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    everywhere = {"image": np.ones(n, bool)}
    return EmbeddingTable({"image": x}, everywhere, patients, np.arange(n), labels, ("a", "b", "c"), np.arange(n), ids)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_whole_patients_are_drawn_as_many_as_asked(table, fraction):
    rows = draw(table.labels, table.patients, fraction, 0)
    drawn = set(table.patients[rows])
    assert len(drawn) == round(fraction * 300)
    assert set(rows) == set(np.flatnonzero(np.isin(table.patients, list(drawn))))
    np.testing.assert_array_equal(rows, draw(table.labels, table.patients, fraction, 0))
    assert set(rows) != set(draw(table.labels, table.patients, fraction, 1))


def test_every_label_keeps_its_share_of_patients(table):
    """Closer than by chance, and the rare label is there even in three patients."""
    has = np.zeros((300, 3), bool)
    np.logical_or.at(has, table.patients, table.labels == 1)
    for seed in range(5):
        for fraction, slack in ((0.1, 2.5), (0.5, 3.5)):
            drawn = np.unique(table.patients[draw(table.labels, table.patients, fraction, seed)])
            share = has[drawn].sum(0) - fraction * has.sum(0)
            assert np.abs(share[1:]).max() <= slack
        few = np.unique(table.patients[draw(table.labels, table.patients, 0.01, seed)])
        assert len(few) == 3 and has[few, 2].any()


def test_the_whole_split_is_drawn_once(table):
    drawn = parts(table, (1.0, 0.1), 3)
    assert [(p.fraction, p.seed) for p in drawn] == [(0.1, 0), (0.1, 1), (0.1, 2), (1.0, 0)]
    np.testing.assert_array_equal(drawn[-1].rows, np.arange(600))


def test_lists_are_read_back_by_id_whatever_the_order(table, tmp_path, rng):
    drawn = parts(table, (0.1, 1.0), 3)
    names = write_lists(tmp_path, table, drawn, DATA)
    assert names[0] == "fraction-0.1-seed-0.json"
    order = rng.permutation(600)
    elsewhere = replace(table.where(order), rows=np.arange(600))
    for mine, read in zip(drawn, read_lists(tmp_path, elsewhere, {**DATA, "manifest_sha256": "other"}), strict=True):
        assert (mine.fraction, mine.seed) == (read.fraction, read.seed)
        assert set(order[read.rows]) == set(mine.rows)


def test_lists_without_ids_go_by_row_of_the_same_data_set(table, tmp_path):
    nameless = replace(table, ids=np.zeros((600, 2), np.uint32))
    drawn = parts(nameless, (0.1,), 3)
    write_lists(tmp_path, nameless, drawn, DATA)
    np.testing.assert_array_equal(read_lists(tmp_path, nameless, DATA)[0].rows, drawn[0].rows)
    with pytest.raises(UserError, match="another data set"):
        read_lists(tmp_path, nameless, {**DATA, "manifest_sha256": "other"})


def test_lists_that_do_not_fit_are_errors(table, tmp_path):
    with pytest.raises(UserError, match="no lists of examples"):
        read_lists(tmp_path, table, DATA)
    (name,) = write_lists(tmp_path, table, parts(table, (1.0,), 3), DATA)
    with pytest.raises(UserError, match="1 of its 600 examples are not in the training split of 'toy'"):
        read_lists(tmp_path, table.where(np.arange(599)), DATA)
    listed = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps({**listed, "format": "x"}))
    with pytest.raises(UserError, match="has format 'x'"):
        read_lists(tmp_path, table, DATA)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="not a list of examples"):
        read_lists(tmp_path, table, DATA)


def test_the_score_is_the_mean_over_draws_of_labels_that_all_can_score(rng):
    x = {k: rng.normal(size=(n, 3)).astype(np.float32) for k, n in (("train", 80), ("validation", 40), ("test", 60))}
    labels = {k: np.stack([v[:, 0] > 0, v[:, 1] > 0], axis=1).astype(np.float32) for k, v in x.items()}
    labels["train"][:40, 1] = 0
    splits = {k: Features(x[k], labels[k], np.arange(len(x[k])) // 2) for k in x}
    drawn = [Part(0.5, s, np.arange(start, start + 40)) for s, start in enumerate((20, 30, 0))]
    result = fraction_probe(splits, ("a", "b"), RECIPES["newton"], drawn)
    alone = [
        fit_probe({**splits, "train": splits["train"].where(p.rows)}, ("a", "b"), RECIPES["newton"]) for p in drawn
    ]
    each = [r.auroc["a"].value for r in alone]
    assert result.macro.value == pytest.approx(np.mean(each)) and result.sd == pytest.approx(np.std(each, ddof=1))
    assert result.skipped == {"b": "in 1 of 3 draws the train split has one class only"}
    mean = average([r.replicates["a"] for r in alone])
    assert result.macro.low == pytest.approx(np.percentile(mean[1:], 2.5))
    assert (result.examples, result.patients, result.seeds) == (40, 20, 3)
