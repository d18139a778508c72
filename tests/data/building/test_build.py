"""Building is deterministic, counts what it rejects, and stops where too much is damaged."""

import hashlib
import json

import numpy as np
import pytest
from tiny_source import SCHEMA, TinySource, study, unreadable

from medjax.data import manifest as manifests
from medjax.data import tokenizer
from medjax.data.building.build import REJECTED, Options, build_dataset
from medjax.data.ids import hash_id
from medjax.data.manifest import SPLITS
from medjax.data.records import decode, encode_text
from medjax.data.sources import Phantom
from medjax.errors import UserError

NOTHING = np.array([np.nan, np.nan], np.float32)


def good(count: int = 5) -> list:
    return [study(f"{split}-{i}", split) for split in SPLITS for i in range(count)]


def build(given, directory, schema=SCHEMA, **options):
    return build_dataset(TinySource(given, schema), directory, Options(**options), lambda done, total: None)


def rejected(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / REJECTED).read_text().splitlines()]


def train_records(directory) -> list[dict]:
    import grain

    shards = manifests.load(directory).splits["train"].shards
    source = grain.sources.ArrayRecordDataSource([str(directory / s["file"]) for s in shards])
    return [decode(source[i]) for i in range(len(source))]


def test_two_workers_build_the_same_bytes_as_one(phantom_dir, tmp_path):
    again = build_dataset(Phantom(patients=60, size=32), tmp_path / "d", Options(workers=2), lambda done, total: None)
    assert again.digest() == manifests.load(phantom_dir).digest()
    for name in (f"{split}-00000.array_record" for split in SPLITS):
        assert (tmp_path / "d" / name).read_bytes() == (phantom_dir / name).read_bytes()
    assert digest(tmp_path / "d" / tokenizer.FOLDER) == digest(phantom_dir / tokenizer.FOLDER)


def digest(folder) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.iterdir()))).hexdigest()


def test_every_study_is_written_once_and_reported(tmp_path):
    seen = []
    source = TinySource(good())
    manifest = build_dataset(
        source, tmp_path, Options(records_per_shard=2), lambda done, total: seen.append((done, total))
    )
    assert seen == [(i + 1, 15) for i in range(15)]
    assert {k: s.examples for k, s in manifest.splits.items()} == dict.fromkeys(SPLITS, 5)
    assert [s["records"] for s in manifest.splits["train"].shards] == [2, 2, 1]
    ids = [r["id/example"].tolist() for r in train_records(tmp_path)]
    assert ids == [hash_id(f"train-{i}").tolist() for i in range(5)]
    assert rejected(tmp_path) == []


def test_damaged_studies_are_left_out_counted_and_listed(tmp_path):
    manifest = build([*good(), unreadable("torn", "train")], tmp_path, max_rejected_fraction=0.1)
    assert manifest.rejected == manifests.load(tmp_path).rejected == 1
    assert rejected(tmp_path) == [{"example": "torn", "reason": "torn is damaged"}]
    assert manifest.splits["train"].examples == 5


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (dict(text=[encode_text("  \n")]), "text is empty text"),
        (dict(labs=[NOTHING]), "labs holds no value at all"),
    ],
)
def test_items_without_content_are_rejected(tmp_path, items, reason):
    build([*good(), study("hollow", "train", **items)], tmp_path, max_rejected_fraction=0.1)
    assert rejected(tmp_path) == [{"example": "hollow", "reason": reason}]


def test_an_ecg_with_nan_is_rejected(tmp_path):
    schema = Phantom().schema
    ecg = np.zeros((12, 20), np.float32)
    given = [study(s, s, ecg=[ecg], labs=[np.zeros(10, np.float32)]) for s in SPLITS]
    given = [type(s)(s.name, s.patient, s.split, lambda s=s: without_labels(s.read())) for s in given]
    bad = without_labels(study("bad", "train", ecg=[np.where(np.arange(20) == 3, np.nan, ecg)]).read())
    given.append(type(given[0])("bad", "bad", "train", lambda: bad))
    build(given, tmp_path, schema, max_rejected_fraction=0.5)
    assert rejected(tmp_path) == [{"example": "bad", "reason": "ecg holds samples that are not numbers"}]


def without_labels(example):
    example.labels = {}
    return example


def test_a_study_without_patient_is_rejected(tmp_path):
    nameless = study("nameless", "train")
    example = nameless.read()
    example.patient_id = ""
    nameless = type(nameless)("nameless", "", "train", lambda: example)
    build([*good(), nameless], tmp_path, max_rejected_fraction=0.1)
    assert [r["example"] for r in rejected(tmp_path)] == ["nameless"]
    assert all(r["id/patient"].any() for r in train_records(tmp_path))


def test_the_build_stops_beyond_the_limit_and_leaves_no_data_set(tmp_path):
    given = [*good(), *(unreadable(f"torn-{i}", "train") for i in range(5))]
    with pytest.raises(UserError, match=r"3 of 20 studies are unreadable.*torn-2 is damaged.*rejected\.jsonl"):
        build(given, tmp_path, max_rejected_fraction=0.1)
    assert len(rejected(tmp_path)) == 3
    with pytest.raises(UserError, match="no data set"):
        manifests.load(tmp_path)


def test_the_limit_itself_is_allowed(tmp_path):
    given = [*good(6), *(unreadable(f"torn-{i}", "train") for i in range(2))]
    assert build(given, tmp_path, max_rejected_fraction=0.1).rejected == 2


def test_a_split_of_rejected_studies_alone_is_named(tmp_path):
    given = [s for s in good() if s.split != "test"]
    with pytest.raises(UserError, match="every example of the test split was rejected"):
        build([*given, unreadable("only", "test")], tmp_path, max_rejected_fraction=0.5)


def test_a_data_set_is_never_overwritten(tmp_path):
    build(good(), tmp_path)
    before = (tmp_path / manifests.FILE).read_bytes()
    with pytest.raises(UserError, match=r"there is a data set at .* already"):
        build(good(7), tmp_path)
    assert (tmp_path / manifests.FILE).read_bytes() == before


def test_nothing_in_the_files_names_a_patient_or_a_study(tmp_path):
    build([study(f"{s}-MRN4711", s, patient=f"{s}-Ada Lovelace") for s in SPLITS], tmp_path)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert b"MRN4711" not in path.read_bytes() and b"Lovelace" not in path.read_bytes(), path


def test_a_secret_key_changes_every_id_and_nothing_else(tmp_path):
    plain, keyed = (
        (build(good(), tmp_path / k, id_key=k.encode()), train_records(tmp_path / k))[1] for k in ("", "k" * 16)
    )
    for a, b in zip(plain, keyed, strict=True):
        for key in a:
            assert np.array_equal(a[key], b[key]) == (not key.startswith("id/") or not a[key].any())


def test_lab_statistics_come_from_finite_training_values(tmp_path):
    values = {"train": [[1, 5], [3, np.nan], [5, np.inf], [np.nan, 7]], "validation": [[900, 900]], "test": [[-900, 0]]}
    given = [
        study(f"{s}-{i}", s, labs=[np.array(row, np.float32)])
        for s, rows in values.items()
        for i, row in enumerate(rows)
    ]
    labs = build(given, tmp_path).modality("labs")
    statistics, (low, *_, high) = labs.statistics, np.percentile([1, 3, 5], np.arange(1, 100))
    np.testing.assert_allclose(labs.percentiles["a"], np.percentile([1, 3, 5], np.arange(1, 100)))
    clipped = np.clip([1, 3, 5], low, high)
    np.testing.assert_allclose(statistics["a"], (clipped.mean(), clipped.std(), low, high, 0.75))
    # +inf is an observation beyond the detection limit: observed, and no part of mean and spread.
    assert statistics["b"][0] == pytest.approx(6.0) and statistics["b"][4] == 0.75


def test_a_test_that_no_one_had_scales_by_one(tmp_path):
    given = [study(s, s, labs=[np.array([2.0, np.nan], np.float32)]) for s in SPLITS]
    statistics = build(given, tmp_path).modality("labs").statistics
    assert statistics["b"] == (0.0, 1.0, 0.0, 0.0, 0.0)
    assert statistics["a"][:2] == (2.0, 1.0)


def test_the_vocabulary_is_learnt_from_training_reports_alone(tmp_path):
    words = {"train": "pneumothorax", "validation": "cardiomegaly", "test": "atelectasis"}
    given = [study(f"{s}-{i}", s, words=words[s]) for s in SPLITS for i in range(4)]
    build(given, tmp_path)
    vocabulary = tokenizer.load(tmp_path / tokenizer.FOLDER).get_vocab()
    assert "pneumothorax" in vocabulary
    assert not {"cardiomegaly", "atelectasis"} & set(vocabulary)


def test_a_tokenizer_that_is_brought_along_is_copied(tmp_path, phantom_dir):
    brought = phantom_dir / tokenizer.FOLDER
    build([study(s, s, words="regular sinus rhythm") for s in SPLITS], tmp_path, tokenizer=str(brought))
    assert digest(tmp_path / tokenizer.FOLDER) == digest(brought)


def test_a_missing_tokenizer_stops_the_build_before_any_study_is_read(tmp_path):
    read = []
    given = [type(s)(s.name, s.patient, s.split, lambda s=s: read.append(s)) for s in good()]
    with pytest.raises(UserError, match="no tokenizer at"):
        build(given, tmp_path / "d", tokenizer=str(tmp_path / "none"))
    assert not read


def test_a_tokenizer_of_another_language_is_refused(tmp_path, phantom_dir):
    given = [study(s, s, words="Лёгкие без очаговых теней") for s in SPLITS]
    with pytest.raises(UserError, match=r"100%|[3-9]\d% of the pieces are unknown"):
        build(given, tmp_path, tokenizer=str(phantom_dir / tokenizer.FOLDER))
    assert not (tmp_path / manifests.FILE).exists()
