"""Tables of embeddings hold every valid example once, and no padding."""

from types import SimpleNamespace

import numpy as np
import pytest

from medjax.data import DataConfig, Dataset
from medjax.evaluation.embeddings import embed_batches


@pytest.fixture(scope="module")
def dataset(phantom_dir):
    return Dataset.open(DataConfig(dir=str(phantom_dir), modalities={"labs": {}, "text": dict(length=24)}))


def encode(batch):
    """An embedding that says which example it is; padding embeds to NaN."""
    marks = np.where(batch.valid[:, None], batch.ids["example"].astype(np.float64), np.nan)
    present = {m: x.present for m, x in batch.items.items()}
    return SimpleNamespace(pooled=dict.fromkeys(present, marks), present=present)


@pytest.mark.parametrize("size", [7, 16, 64])
def test_padding_never_enters_whatever_the_batch_size(dataset, size):
    table = embed_batches(encode, dataset.evaluation("test", size), dataset.manifest.labels)
    records = len(dataset.source("test"))
    assert len(table) == records and table.rows.tolist() == list(range(records))
    for x in table.embeddings.values():
        assert np.isfinite(x).all() and len(np.unique(x, axis=0)) == records
    assert len(np.unique(table.patients)) == dataset.manifest.splits["test"].patients
    for m, present in table.present.items():
        assert present.sum() == dataset.manifest.splits["test"].present[m]
    for k, name in enumerate(table.label_names):
        assert np.nansum(table.labels[:, k]) == dataset.manifest.splits["test"].positive[name]


def test_an_invalid_example_in_the_middle_is_left_out_and_the_others_keep_their_rows(dataset):
    batches = list(dataset.evaluation("test", 8))
    batches[0].valid[3] = False
    table = embed_batches(encode, batches, dataset.manifest.labels)
    assert 3 not in table.rows and table.rows[3] == 4 and len(table) == len(dataset.source("test")) - 1


def test_unknown_labels_are_nan(dataset):
    batches = list(dataset.evaluation("test", 64))
    batches[0].targets["labels_mask"][2, 1] = False
    table = embed_batches(encode, batches, dataset.manifest.labels)
    assert np.isnan(table.labels[2, 1]) and np.isnan(table.labels).sum() == 1


def test_a_part_keeps_what_belongs_together(dataset):
    table = embed_batches(encode, dataset.evaluation("test", 64), dataset.manifest.labels)
    keep = np.arange(len(table)) % 2 == 1
    part = table.where(keep)
    np.testing.assert_array_equal(part.rows, table.rows[keep])
    np.testing.assert_array_equal(part.embeddings["labs"], table.embeddings["labs"][keep])
    np.testing.assert_array_equal(
        part.all_present(("labs", "text")), (table.present["labs"] & table.present["text"])[keep]
    )
