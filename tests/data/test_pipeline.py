"""The stream of batches depends on seed and position alone: not on restarts, processes or threads."""

from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest

from medjax.data import DataConfig, Dataset
from medjax.data.records import decode
from medjax.errors import UserError

BATCH = 8
# Every augmentation is on, so that equal batches mean equal random numbers.
MODALITIES = {
    "image": dict(size=16, shift=0.1, zoom=0.1, contrast=0.2),
    "ecg": dict(samples=200, gain=0.1, noise=0.05, lead_drop=0.2),
    "labs": dict(drop=0.3),
    "text": dict(length=24, shuffle=True, sentence_drop=0.3),
}


@pytest.fixture(scope="module")
def dataset(phantom_dir):
    return Dataset.open(DataConfig(dir=str(phantom_dir), modalities=MODALITIES, batch_size=BATCH, threads=0))


@pytest.fixture(scope="module")
def stream(dataset):
    """The first 30 batches: more than two epochs of the 98 training examples."""
    return list(islice(dataset.train(3, 0, BATCH), 30))


def example_ids(batches) -> list[tuple[int, int]]:
    return [tuple(i) for b in batches for i in b.ids["example"][b.valid].tolist()]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_stream_from_any_step_equals_the_rest_of_the_whole_stream(dataset, stream):
    for k in range(len(stream)):
        assert_equal(next(dataset.train(3, k * BATCH, BATCH)), stream[k])
    for k in (1, 11, 13):
        for resumed, whole in zip(dataset.train(3, k * BATCH, BATCH), stream[k : k + 6], strict=False):
            assert_equal(resumed, whole)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batches(dataset, stream, processes):
    parts = [dataset.train(3, 2 * BATCH, BATCH, p, processes) for p in range(processes)]
    for whole in stream[2:16]:
        mine = [next(p) for p in parts]
        assert all(b.size == BATCH // processes for b in mine)
        assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *mine), whole)


@pytest.mark.parametrize("changes", [dict(threads=4), dict(cache=True), dict(threads=2, cache=True)])
def test_threads_and_cache_change_nothing(dataset, stream, changes):
    other = Dataset.open(replace(dataset.config, **changes))
    for got, expected in zip(other.train(3, 0, BATCH), stream[:20], strict=False):
        assert_equal(got, expected)


def test_an_epoch_covers_every_record_once_and_the_next_in_another_order(dataset, stream):
    records = dataset.source("train")
    n = len(records)
    everything = sorted(tuple(decode(records[i])["id/example"].tolist()) for i in range(n))
    ids = example_ids(stream)
    assert len(ids) >= 2 * n
    for epoch in (ids[:n], ids[n : 2 * n]):
        assert sorted(epoch) == everything
    assert ids[:n] != ids[n : 2 * n]


def test_another_seed_gives_another_order_and_other_augmentation(dataset, stream):
    other = list(islice(dataset.train(4, 0, BATCH), 12))
    assert example_ids(other) != example_ids(stream[:12])
    images = {i: im for b in stream[:12] for i, im in zip(example_ids([b]), b.items["image"].value, strict=True)}
    for b in other:
        for i, image in zip(example_ids([b]), b.items["image"].value, strict=True):
            if i in images and image.any():
                assert not np.array_equal(image, images[i])


def test_a_record_is_augmented_otherwise_in_every_epoch(dataset, stream):
    seen = {}
    again = 0
    for b in stream:
        for i, signal in zip(example_ids([b]), b.items["ecg"].value, strict=True):
            if signal.any():
                again += i in seen
                assert i not in seen or not np.array_equal(signal, seen[i])
                seen[i] = signal
    assert again > 50


def test_rows_are_numbered_within_the_global_batch(dataset):
    assert next(dataset.train(0, 0, BATCH)).row.tolist() == list(range(BATCH))
    assert next(dataset.train(0, 0, BATCH, 1, 4)).row.tolist() == [2, 3]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_covers_every_record_once_in_order_and_pads(dataset, split, processes):
    records = dataset.source(split)
    everything = [tuple(decode(records[i])["id/example"].tolist()) for i in range(len(records))]
    parts = [list(dataset.evaluation(split, 12, p, processes)) for p in range(processes)]
    batches = [jax.tree.map(lambda *x: np.concatenate(x), *step) for step in zip(*parts, strict=True)]
    assert example_ids(batches) == everything
    valid = np.concatenate([b.valid for b in batches])
    assert len(valid) == 12 * -(-len(everything) // 12)
    assert valid.tolist() == [True] * len(everything) + [False] * (len(valid) - len(everything))
    padding = jax.tree.map(lambda x: x[~batches[-1].valid], batches[-1])
    assert not any(items.mask.any() for items in padding.items.values())
    assert not padding.targets["labels_mask"].any()


def test_evaluation_does_not_augment(dataset):
    first, again = (list(dataset.evaluation("test", 16)) for _ in range(2))
    assert_equal(first, again)


def test_only_valid_folds_validity_into_every_mask(dataset):
    batch = next(dataset.train(0, 0, BATCH))
    batch = replace(batch, valid=np.arange(BATCH) % 2 == 0).only_valid()
    for items in batch.items.values():
        assert not items.mask[1::2].any()
    assert not batch.targets["labels_mask"][1::2].any() and batch.targets["labels_mask"][::2].any()


def test_a_batch_that_does_not_divide_is_refused(dataset):
    with pytest.raises(UserError, match="batch_size=8 does not divide by 3 processes"):
        next(dataset.train(0, 0, BATCH, 0, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dir=""), "config.data.dir is not set"),
        (dict(modalities={"imgae": {}}), r"config\.data\.modalities\.imgae.*did you mean 'image'"),
        (dict(modalities={"image": {"sise": 3}}), r"config\.data\.modalities\.image\.sise.*did you mean 'size'"),
        (dict(max_items={"imag": 2}), r"max_items 'imag'; did you mean 'image'"),
    ],
)
def test_bad_options_are_named(dataset, changes, message):
    with pytest.raises(UserError, match=message):
        Dataset.open(replace(dataset.config, **changes))


def test_an_unknown_split_is_named(dataset):
    with pytest.raises(UserError, match="did you mean 'validation'"):
        next(dataset.evaluation("valid", 4))
