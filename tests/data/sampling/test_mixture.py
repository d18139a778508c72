"""Mixtures, balanced sampling and buckets: shares, labels, masks, and one order whatever reads it."""

from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest
from data_sets import TRAINING, assert_equal, build_reports, ids
from grain.experimental import LimitIterDataset, assert_equal_output_after_checkpoint
from tiny_source import TinySource, study

from medjax.data import DataConfig, Dataset
from medjax.data.building.build import Options, build_dataset
from medjax.data.options import BucketConfig, SetConfig
from medjax.data.records import decode
from medjax.errors import UserError

MODALITIES = {
    "image": dict(size=16, shift=0.1, contrast=0.2),
    "labs": dict(drop=0.3),
    "text": dict(length=12, shuffle=True, sentence_drop=0.3),
}
BATCH = 6
BY_SET = {"pictures": BucketConfig(sets=("phantom",)), "texts": BucketConfig(sets=("reports",), max_items={"text": 2})}
BY_ITEMS = {"one": BucketConfig(max_items={"text": 1}), "two": BucketConfig(max_items={"text": 2})}
FORMS = {
    "mixture": {},
    "label": dict(balance="label", balance_weights={"none": 2.0}),
    "modality": dict(balance="modality"),
    "buckets by set": dict(buckets=BY_SET, bucket_examples=2 * BATCH),
    "buckets by items": dict(buckets=BY_ITEMS, bucket_examples=2 * BATCH),
}


@pytest.fixture(scope="module")
def config(phantom_dir, tmp_path_factory):
    reports = build_reports(tmp_path_factory.mktemp("reports") / "data", phantom_dir / "tokenizer")
    sets = {"phantom": SetConfig(str(phantom_dir), 3.0), "reports": SetConfig(str(reports), 1.0)}
    return DataConfig(modalities=MODALITIES, mixture=sets, batch_size=BATCH, threads=0)


@pytest.fixture(scope="module")
def mixed(config):
    return Dataset.open(config)


@pytest.fixture(scope="module", params=FORMS)
def form(request, config):
    return Dataset.open(replace(config, **FORMS[request.param]))


def of_reports(mixed) -> set[tuple[int, ...]]:
    source = mixed.sets[1].source("train")
    return {tuple(decode(source[i])["id/example"].tolist()) for i in range(len(source))}


def test_each_set_has_its_share_of_every_batch_and_runs_through_epochs_of_its_own(mixed):
    batches = list(islice(mixed.train(0, 0, 8), 12))
    reports = of_reports(mixed)
    drawn = [i for i in ids(batches) if i in reports]
    for b in batches:
        assert sum(i in reports for i in ids([b])) == 2  # a quarter of 8
    assert len(drawn) == 2 * TRAINING
    for epoch in (drawn[:TRAINING], drawn[TRAINING:]):
        assert set(epoch) == reports
    assert drawn[:TRAINING] != drawn[TRAINING:]


def test_labels_meet_by_name_and_what_a_set_lacks_is_masked(mixed):
    assert mixed.manifest.labels[-1] == "sick" and len(mixed.manifest.labels) > 1
    batch, reports = next(mixed.train(0, 0, 8)), of_reports(mixed)
    for row, example in enumerate(ids([batch])):
        known = batch.targets["labels_mask"][row]
        assert known[-1] == (example in reports) and known[:-1].any() == (example not in reports)
        if example in reports:
            assert batch.targets["labels"][row, -1] == 1
            assert batch.items["text"].mask[row].all()
            for m in ("image", "labs"):
                assert not batch.items[m].mask[row].any()
                assert not any(x[row].any() for x in jax.tree.leaves(batch.items[m].value))


def test_evaluation_of_a_mixture_covers_every_set(mixed):
    for split in ("validation", "test"):
        expected = sum(s.manifest.splits[split].examples for s in mixed.sets)
        assert len(set(ids(mixed.evaluation(split, 8)))) == expected == mixed.manifest.splits[split].examples


def test_a_set_alone_in_a_mixture_is_read_as_without_one(mixed, config):
    one = {"phantom": config.mixture["phantom"]}
    alone = Dataset.open(replace(config, mixture={}, dir=one["phantom"].dir))
    together = Dataset.open(replace(config, mixture=one))
    for a, b in zip(islice(alone.train(5, 12, 4), 3), together.train(5, 12, 4), strict=False):
        assert_equal(a, b)


def test_grain_restores_every_state_of_every_form(form):
    dataset = replace(form, config=replace(form.config, threads=2))
    assert_equal_output_after_checkpoint(LimitIterDataset(dataset.stream(2, 0, BATCH), 3))


def test_processes_may_change_from_one_to_two_and_back(form):
    whole = list(islice(form.train(2, 0, BATCH), 5))
    two = [form.train(2, 2 * BATCH, BATCH, p, 2) for p in range(2)]
    for expected in whole[2:4]:
        assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *(next(p) for p in two)), expected)
    for got, expected in zip(form.train(2, 4 * BATCH, BATCH), whole[4:], strict=False):
        assert_equal(got, expected)


def test_another_global_batch_goes_on_in_the_same_order_with_the_same_rows(form):
    whole = list(islice(form.train(2, 0, BATCH), 4))
    half, size = [], BATCH // 2
    for step in range(4):  # each from a fresh start, as after a restart
        half.append(next(form.train(2, 2 * BATCH + step * size, size)))
    for i, expected in enumerate(whole[2:]):
        rows = jax.tree.map(lambda *x: np.concatenate(x), *half[2 * i : 2 * i + 2])
        assert_equal(replace(rows, row=expected.row), expected)


def test_balancing_gives_every_label_its_share_of_its_set(mixed, config):
    balanced = Dataset.open(replace(config, balance="label", mixture={"phantom": config.mixture["phantom"]}))
    (groups,) = balanced.groups
    assert len({g.weight for g in groups}) == 1 and len(groups) > 3
    source = balanced.source("train")
    positive = np.array([decode(source[i])["labels"] == 1 for i in range(len(source))])
    for g in groups:
        name = g.name.split("/")[1]
        for record in g.records:
            own = np.flatnonzero(positive[record])
            if name == "none":
                assert not len(own)
            else:
                k = balanced.manifest.labels.index(name)
                assert k in own and positive.sum(0)[k] == positive.sum(0)[own].min()
    n = 10 * len(groups)
    (batch,) = islice(balanced.train(0, 0, n), 1)
    of = {tuple(decode(source[r])["id/example"].tolist()): g.name for g in groups for r in g.records}
    drawn = [of[i] for i in ids([batch])]
    assert all(abs(drawn.count(g.name) - 10) <= 1 for g in groups)


def test_weights_of_groups_leave_out_and_favour(config):
    only = Dataset.open(replace(config, balance="label", balance_weights={"sick": 0.0, "none": 5.0}))
    names = {g.name: g.weight for g in only.groups[0]}
    assert "reports/sick" not in names
    assert names["phantom/none"] == pytest.approx(5 * names["phantom/pleural_effusion"])


def test_batches_are_of_one_bucket_with_no_room_for_what_it_never_has(config):
    dataset = Dataset.open(replace(config, buckets=BY_SET))
    reports, seen = of_reports(dataset), []
    for batch in islice(dataset.train(0, 0, BATCH), 12):
        inside = {i in reports for i in ids([batch])}
        assert len(inside) == 1
        shapes = {m: x.mask.shape[1] for m, x in batch.items.items()}
        assert shapes == (
            {"image": 0, "labs": 0, "text": 2} if inside == {True} else {"image": 1, "labs": 1, "text": 1}
        )
        seen.append(inside.pop())
    assert seen.count(True) == 3  # a quarter, as the weights of the sets say
    first = dataset.first_batch(0, BATCH)
    assert all(x.mask.shape[1] for x in first.items.values())


def test_records_go_to_the_first_bucket_that_holds_their_items(config):
    dataset = Dataset.open(replace(config, buckets=BY_ITEMS))
    reports, two = of_reports(dataset), set()
    for batch in islice(dataset.train(0, 0, BATCH), 24):
        n = batch.items["text"].mask.shape[1]
        for i, mask in zip(ids([batch]), batch.items["text"].mask, strict=True):
            if i in reports:
                two |= {i} if n == 2 else set()
                assert mask.sum() == n
    assert two and len(two) <= TRAINING // 3


def test_modalities_that_do_not_fit_are_named(config, tmp_path, phantom_dir):
    studies = [study(s, s) for s in ("train", "validation", "test")]
    build_dataset(TinySource(studies), tmp_path / "labs", Options(), lambda done, total: None)
    sets = {"phantom": SetConfig(str(phantom_dir)), "other": SetConfig(str(tmp_path / "labs"))}
    with pytest.raises(UserError, match=r"modality 'labs' has names .* in 'phantom' and \('a', 'b'\) in 'other'"):
        Dataset.open(replace(config, mixture=sets))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dir="here"), "both set; keep one"),
        (dict(mixture={}), "config.data.dir is not set"),
        (dict(balance="label", balance_weights={"sik": 1.0}), "balance_weights 'sik'; did you mean 'sick'"),
        (dict(buckets={"a": BucketConfig(sets=("phantm",))}), "did you mean 'phantom'"),
        (dict(buckets={"a": BucketConfig(sets=("phantom",))}), "takes the set 'reports'"),
        (dict(buckets=BY_SET, bucket_examples=BATCH + 1), "must be multiples of the batch"),
    ],
)
def test_bad_options_are_named(config, changes, message):
    with pytest.raises(UserError, match=message):
        next(Dataset.open(replace(config, **changes)).train(0, 0, BATCH))
