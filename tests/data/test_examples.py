"""A record becomes a row of fixed shape; one that cannot be used becomes an invalid row and is logged."""

import logging
import shutil

import jax
import numpy as np
import pytest

from medjax.data import DataConfig, Dataset
from medjax.data.examples import Examples
from medjax.data.ids import hash_id
from medjax.data.records import decode, encode, encode_text

MODALITIES = {"image": dict(size=16), "ecg": dict(samples=100), "labs": {}, "text": dict(length=12)}


@pytest.fixture(scope="module")
def dataset(phantom_dir):
    return Dataset.open(DataConfig(dir=str(phantom_dir), modalities=MODALITIES))


def examples(dataset, source, max_items=None, cache=False):
    return Examples(source, dataset.transforms, len(dataset.manifest.labels), max_items or {}, cache)


def structure(row):
    return jax.tree.map(lambda x: (np.shape(x), np.asarray(x).dtype), row)


def assert_empty(items):
    assert not items["mask"].any()


def test_all_rows_have_one_structure_and_so_has_the_placeholder(dataset):
    rows = dataset.examples("test")
    expected = structure(rows.row(0, None))
    assert all(structure(rows.row(i, None)) == expected for i in range(len(rows)))
    assert structure(rows.placeholder()) == expected


def test_the_mask_says_which_modalities_the_record_has(dataset):
    source, rows = dataset.source("train"), dataset.examples("train")
    for i in range(len(rows)):
        record, row = decode(source[i]), rows.row(i, None)
        for m in MODALITIES:
            assert row["items"][m]["mask"].tolist() == [f"{m}/0" in record]
            if f"{m}/0" not in record and m != "text":  # absent text keeps one token to look at
                assert all(not x.any() for x in jax.tree.leaves(row["items"][m]["value"]))
        np.testing.assert_array_equal(row["targets"]["labels"], record["labels"])
        np.testing.assert_array_equal(row["ids"]["patient"], record["id/patient"])


def test_unknown_labels_are_masked_and_zero(dataset):
    record = decode(dataset.source("test")[0])
    record["labels"] = record["labels"].copy()
    record["labels"][3] = np.nan
    row = examples(dataset, [encode(record)]).row(0, None)
    assert not row["targets"]["labels_mask"][3] and row["targets"]["labels"][3] == 0
    assert row["targets"]["labels_mask"].sum() == len(record["labels"]) - 1


@pytest.mark.parametrize("damage", ["not a record", "an image", "an ECG"])
def test_a_record_that_cannot_be_used_is_an_invalid_row(dataset, damage, caplog):
    source = dataset.source("train")
    complete = next(i for i in range(len(source)) if all(f"{m}/0" in decode(source[i]) for m in MODALITIES))
    record = decode(source[complete])
    if damage == "an image":
        record["image/0"] = record["image/0"][:40]
    elif damage == "an ECG":
        record["ecg/0"] = np.full_like(record["ecg/0"], np.nan)
    data = b"junk" if damage == "not a record" else encode(record)
    rows = examples(dataset, [source[0], data])
    with caplog.at_level(logging.WARNING, "medjax"):
        row = rows.row(1, np.random.default_rng(0))
    assert not row["valid"] and structure(row) == structure(rows.row(0, None))
    assert not any(items["mask"].any() for items in row["items"].values())
    assert not row["targets"]["labels_mask"].any() and not row["ids"]["patient"].any()
    assert "record 1 cannot be used" in caplog.text


def test_a_flipped_bit_in_a_shard_costs_one_example(phantom_dir, tmp_path):
    copy = shutil.copytree(phantom_dir, tmp_path / "data")
    path = copy / "test-00000.array_record"
    clean = Dataset.open(DataConfig(dir=str(phantom_dir), modalities=MODALITIES)).examples("test")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    damaged = Dataset.open(DataConfig(dir=str(copy), modalities=MODALITIES)).examples("test")
    rows = [damaged.row(i, None) for i in range(len(damaged))]
    assert [r["valid"] for r in rows].count(False) == 1
    for i, row in enumerate(rows):
        if row["valid"]:
            jax.tree.map(np.testing.assert_array_equal, row, clean.row(i, None))


def test_the_cache_changes_no_row(dataset):
    source = dataset.source("test")
    plain, cached = examples(dataset, source), examples(dataset, source, cache=True)
    for _ in range(2):
        for i in range(4):
            jax.tree.map(np.testing.assert_array_equal, plain.row(i, None), cached.row(i, None))


def test_several_items_keep_their_order_and_surplus_ones_are_drawn_in_training(dataset):
    record = decode(dataset.source("test")[0])
    texts = ["left effusion", "regular sinus rhythm", "renal failure", "raised crp"]
    record |= {f"text/{i}": encode_text(t) for i, t in enumerate(texts)}
    source = [encode(record)]
    tokens = [dataset.transforms["text"].prepare(encode_text(t))["tokens"] for t in texts]
    all_four = examples(dataset, source, {"text": 5}).row(0, None)["items"]["text"]
    assert all_four["mask"].tolist() == [True] * 4 + [False]
    np.testing.assert_array_equal(all_four["value"]["tokens"][:4], tokens)
    two = examples(dataset, source, {"text": 2})
    np.testing.assert_array_equal(two.row(0, None)["items"]["text"]["value"]["tokens"], tokens[:2])
    drawn = set()
    for seed in range(40):
        chosen = two.row(0, np.random.default_rng(seed))["items"]["text"]["value"]["tokens"]
        pair = tuple(next(i for i, t in enumerate(tokens) if np.array_equal(t, c)) for c in chosen)
        assert pair[0] < pair[1]
        drawn.add(pair)
    assert len(drawn) == 6


def test_sentences_of_a_report_are_items_and_leave_its_text_id_alone(dataset, phantom_dir):
    text = {"text": dict(length=12, sentences=3)}
    split = Dataset.open(DataConfig(dir=str(phantom_dir), modalities={**MODALITIES, **text}))
    report = ["Left effusion.", "Raised crp;", "renal failure.", "regular sinus rhythm."]
    record = {k: v for k, v in decode(dataset.source("test")[0]).items() if not k.startswith("text/")}
    few, many = (encode({**record, "text/0": encode_text(" ".join(report[:n]))}) for n in (2, 4))
    rows = examples(split, [few, many])
    tokens = [dataset.transforms["text"].prepare(encode_text(s))["tokens"] for s in report]
    items = [rows.row(i, None)["items"]["text"] for i in (0, 1)]
    assert [x["mask"].tolist() for x in items] == [[True, True, False], [True] * 3]
    np.testing.assert_array_equal(items[0]["value"]["tokens"][:2], tokens[:2])
    np.testing.assert_array_equal(items[1]["value"]["tokens"], tokens[:3])
    assert examples(split, [many], {"text": 4}).row(0, None)["items"]["text"]["mask"].all()
    whole = examples(dataset, [many]).row(0, None)["ids"]["text"]
    np.testing.assert_array_equal(rows.row(1, None)["ids"]["text"], whole)
    assert structure(rows.placeholder()) == structure(rows.row(0, None))


def test_equal_reports_have_equal_text_ids(dataset):
    record = decode(dataset.source("test")[0])

    def text_id(text):
        return examples(dataset, [encode({**record, "text/0": encode_text(text)})]).row(0, None)["ids"]["text"]

    np.testing.assert_array_equal(text_id("Renal failure."), text_id(" renal  FAILURE. "))
    assert not np.array_equal(text_id("renal failure"), text_id("anaemia"))
    np.testing.assert_array_equal(text_id("renal failure"), hash_id("renal failure"))
