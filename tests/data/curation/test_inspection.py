"""What a data set is said to hold, against its records, and the forecast of pairs against batches that were drawn."""

import itertools

import numpy as np
import pytest

from medjax.data.curation.inspection import expected_pairs, rows_affected, scan, summarise
from medjax.data.manifest import load
from medjax.errors import UserError


def _every_batch(ids, size):
    """Mean number of pairs that share an id, and mean share of affected rows, over all batches of a size."""
    pairs, rows = [], []
    for batch in itertools.combinations(ids, size):
        same = [(a == b != 0) for a, b in itertools.combinations(batch, 2)]
        pairs.append(sum(same))
        rows.append(np.mean([a != 0 and batch.count(a) > 1 for a in batch]))
    return np.mean(pairs), np.mean(rows)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_forecast_is_the_mean_over_all_batches(size):
    ids = [7, 7, 7, 3, 3, 5, 9, 0, 0]
    pairs, rows = _every_batch(ids, size)
    assert expected_pairs(np.array(ids, np.uint64), size) == pytest.approx(pairs, rel=1e-12)
    assert rows_affected(np.array(ids, np.uint64), size) == pytest.approx(rows, rel=1e-12)


def test_forecast_of_a_batch_as_large_as_the_split_and_of_too_few():
    ids = np.array([4, 4, 8], np.uint64)
    assert expected_pairs(ids, 100) == pytest.approx(1) and rows_affected(ids, 100) == pytest.approx(2 / 3)
    assert expected_pairs(ids[:1], 8) == 0 and rows_affected(ids[:0], 8) == 0


def test_summary_agrees_with_the_manifest(phantom_dir):
    manifest = load(phantom_dir)
    for name, split in manifest.splits.items():
        summary = summarise(phantom_dir, manifest, name)
        assert summary.examples == split.examples
        assert len(np.unique(summary.ids["patient"])) == split.patients
        assert {m: summary.examples - c[0] for m, c in summary.items.items()} == dict(split.present)
        assert dict(zip(manifest.labels, summary.positive().tolist(), strict=True)) == dict(split.positive)
        assert sum(n for present, n in summary.present.items() if "ecg" in present) == split.present["ecg"]


def test_unknown_split_is_named(phantom_dir):
    with pytest.raises(UserError, match="valid: test, train, validation"):
        next(scan(phantom_dir, load(phantom_dir), "dev"))
