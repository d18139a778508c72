"""Invalid examples are counted by data set and cause, on from what a checkpoint said."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from data_sets import assert_equal, damaged_copy

from medjax.data import DataConfig, Dataset
from medjax.data.sampling.ledger import PADDING, Ledger


def origin(sets, causes):
    return {"set": np.array(sets, np.uint8), "cause": np.array(causes, np.uint8)}


def test_rows_are_counted_by_set_and_cause_and_padding_is_not():
    ledger = Ledger(["cxr", "ct"], ["image", "volume"])
    ledger.count(origin([0, 0, 1, 1, 1, 0], [0, 3, 4, 4, 1, PADDING]))
    assert ledger.as_dict() == {"cxr": {"image": 1}, "ct": {"volume": 2, "shard": 1}}
    assert ledger.total() == 4


def test_a_restored_ledger_goes_on_counting_also_with_other_modalities():
    before = Ledger([""], ["image", "text"])
    before.count(origin([0, 0], [2, 3]))
    after = Ledger([""], ["text", "image"])
    after.restore(before.as_dict())
    after.count(origin([0], [4]))
    assert after.as_dict() == {"data": {"record": 1, "image": 2}}


def test_counts_of_several_processes_add_to_what_was_restored():
    ledger = Ledger([""], ["image"])
    ledger.restore({"data": {"image": 5}})
    ledger.count(origin([0], [3]))
    assert ledger.as_dict(3 * ledger.counted) == {"data": {"image": 8}}
    assert ledger.total(3 * ledger.counted) == 8


@pytest.fixture(scope="module")
def damaged(phantom_dir, tmp_path_factory):
    """The phantom with two records that cannot be read."""
    copy = damaged_copy(phantom_dir, tmp_path_factory.mktemp("damaged") / "data")
    modalities = {"labs": {}, "text": dict(length=12, shuffle=True)}
    return Dataset.open(DataConfig(dir=str(copy), modalities=modalities, batch_size=7, threads=0))


def test_a_stream_counts_what_it_hands_out_and_a_restart_counts_the_rest(damaged):
    n = damaged.manifest.splits["train"].examples
    steps = 2 * -(-n // 7)
    ledger = damaged.ledger()
    batches = list(islice(damaged.train(0, 0, 7, ledger=ledger), steps))
    assert ledger.total() == sum(int((~b.valid).sum()) for b in batches) >= 4  # two in each epoch
    assert ledger.as_dict() == {"data": {"shard": ledger.total()}}
    threads = replace(damaged, config=replace(damaged.config, threads=3))
    before, after = damaged.ledger(), damaged.ledger()
    list(islice(threads.train(0, 0, 7, ledger=before), 9))  # reads ahead of what it hands out
    after.restore(before.as_dict())
    list(islice(threads.train(0, 9 * 7, 7, ledger=after), steps - 9))
    assert after.as_dict() == ledger.as_dict()


@pytest.mark.slow
@pytest.mark.end_to_end
def test_worker_processes_change_neither_batches_nor_counts(damaged):
    """From none to two to three, each an interpreter of its own that takes seconds to start."""
    expected = damaged.ledger()
    whole = list(islice(damaged.train(2, 0, 7, ledger=expected), 20))
    ledger = damaged.ledger()
    done = 0
    for workers, steps in ((0, 2), (2, 9), (3, 9)):
        dataset = replace(damaged, config=replace(damaged.config, workers=workers))
        batches = dataset.train(2, done * 7, 7, ledger=ledger)
        for batch in whole[done : done + steps]:
            assert_equal(next(batches), batch)
        batches.close()
        done += steps
    assert ledger.as_dict() == expected.as_dict() != {}
