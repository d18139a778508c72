"""PTB-XL's layout: folds, superclasses, reports and signals, on a folder made up here and on the archive's own."""

import csv
import json

import numpy as np
import pytest
from tiny_source import write_wfdb

from medjax.data import manifest as manifests
from medjax.data.building.build import REJECTED, Options, build_dataset
from medjax.data.building.splits import Splitting
from medjax.data.readers.leads import LEADS
from medjax.data.records import decode_text
from medjax.data.sources import PTBXL
from medjax.errors import UserError

STATEMENTS = {"NORM": (1, "NORM"), "IMI": (1, "MI"), "ASMI": (1, "MI"), "LVH": (1, "HYP"), "SR": ("", "")}


def rows() -> list[dict]:
    """Twenty records, two in each fold, of ten patients."""
    codes = ["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 50.0, 'LVH': 0.0}", "{'SR': 0.0}", "{'ASMI': 15.0, 'IMI': 0.0}"]
    return [
        {
            "ecg_id": str(i + 1),
            "patient_id": f"{100 + i // 2}.0",
            "age": "300" if i == 0 else str(50.0 + i),
            "sex": str(i % 2),
            "height": "",
            "weight": "70.0",
            "report": f"sinusrhythmus, befund {i}. Edit: NORM 100",
            "scp_codes": codes[i % 4],
            "strat_fold": str(i // 2 + 1),
            "filename_lr": f"records100/r{i}_lr",
        }
        for i in range(20)
    ]


@pytest.fixture
def archive(tmp_path, rng):
    """Writes a folder of these rows; returns it as a source."""

    def make(given, missing=()):
        folder = tmp_path / "archive"
        for row in given:
            if row["ecg_id"] not in missing:
                signal = rng.normal(size=(12, 1000)).clip(-3, 3)
                write_wfdb(folder / "records100", row["filename_lr"].split("/")[1], signal)
        for name, table in (("ptbxl_database.csv", given), ("scp_statements.csv", statements())):
            with (folder / name).open("w", newline="") as f:
                writer = csv.DictWriter(f, table[0])
                writer.writeheader()
                writer.writerows(table)
        return PTBXL(folder)

    return make


def statements() -> list[dict]:
    return [{"": k, "diagnostic": d, "diagnostic_class": c} for k, (d, c) in STATEMENTS.items()]


def build(source, directory, **options):
    return build_dataset(source, directory, Options(**options), lambda done, total: None)


def split_of(source) -> dict[str, str]:
    return {study.name: study.split for study in source.studies()}


def test_official_folds_are_the_splits(archive, tmp_path):
    source = archive(rows())
    assert list(split_of(source).values()) == ["train"] * 16 + ["validation"] * 2 + ["test"] * 2
    manifest = build(source, tmp_path / "data")
    assert {k: (s.examples, s.patients) for k, s in manifest.splits.items()} == {
        "train": (16, 8),
        "validation": (2, 1),
        "test": (2, 1),
    }


def test_official_folds_win_over_a_split_column(archive):
    given = [{**row, "split": "train"} for row in rows()]
    assert set(split_of(archive(given)).values()) == {"train", "validation", "test"}


def test_without_the_test_fold_the_split_column_counts(archive):
    names = ["train"] * 12 + ["val"] * 2 + ["test"] * 2
    given = [{**row, "split": name} for row, name in zip(rows(), names, strict=False)]
    assert list(split_of(archive(given)).values()) == ["train"] * 12 + ["validation"] * 2 + ["test"] * 2


def test_neither_test_fold_nor_split_column_is_an_error(archive):
    with pytest.raises(UserError, match="neither the test fold 10 nor a column 'split'"):
        archive(rows()[:16]).studies()


@pytest.mark.parametrize("fold", ["", "11"])
def test_what_is_no_fold_is_named(archive, tmp_path, fold):
    given = rows()
    given[3]["strat_fold"] = fold
    with pytest.raises(UserError, match="ecg 4 has the split None"):
        build(archive(given), tmp_path / "data")


def test_labels_are_the_superclasses_of_diagnostic_statements(archive):
    labels = [study.read().labels for study in archive(rows()).studies()[:4]]
    assert [{k for k, v in row.items() if v == 1} for row in labels] == [{"NORM"}, {"MI", "HYP"}, set(), {"MI"}]
    assert all(np.isnan(v) for v in labels[2].values())  # a rhythm alone is no diagnosis
    assert all(v in (0, 1) for i in (0, 1, 3) for v in labels[i].values())


def test_reports_end_where_annotators_wrote_the_codes(archive):
    texts = [decode_text(s.read().items["text"][0]) for s in archive(rows()).studies()]
    assert texts == [f"sinusrhythmus, befund {i}." for i in range(20)]


def test_demographics_keep_gaps_and_the_hidden_age_is_beyond_the_limit(archive):
    first, second = (s.read().items["demographics"][0] for s in archive(rows()).studies()[:2])
    np.testing.assert_array_equal(first, np.array([np.inf, 0, np.nan, 70], np.float32))
    np.testing.assert_array_equal(second, np.array([51, 1, np.nan, 70], np.float32))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(report="  Edit: NORM"), "the report of ecg 2 is empty"),
        (dict(scp_codes="{'NORM'"), "scp_codes of ecg 2 is no dict"),
        (dict(scp_codes="7"), "scp_codes of ecg 2 is no dict"),
        (dict(age="old"), "column 'age' holds 'old'"),
        (dict(filename_lr="records100/none_lr"), "does not exist"),
    ],
)
def test_a_bad_record_is_rejected_and_the_rest_is_built(archive, tmp_path, change, reason):
    given = rows()
    given[1].update(change)
    manifest = build(archive(given, missing=["2"]), tmp_path / "data", max_rejected_fraction=0.1)
    (line,) = (tmp_path / "data" / REJECTED).read_text().splitlines()
    assert json.loads(line)["example"] == "ecg 2" and reason in json.loads(line)["reason"]
    assert manifest.splits["train"].examples == 15


def test_a_truncated_signal_is_rejected(archive, tmp_path):
    source = archive(rows())
    dat = source.path / "records100" / "r5_lr.dat"
    dat.write_bytes(dat.read_bytes()[:500])
    assert build(source, tmp_path / "data", max_rejected_fraction=0.1).rejected == 1
    assert "r5_lr.hea claims 24000 bytes" in (tmp_path / "data" / REJECTED).read_text()


def test_a_missing_column_is_answered_with_the_nearest(archive):
    given = [{("reports" if k == "report" else k): v for k, v in row.items()} for row in rows()]
    with pytest.raises(UserError, match="no column 'report'; did you mean 'reports'"):
        archive(given).studies()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none/ptbxl_database\.csv does not exist"):
        PTBXL(tmp_path / "none").studies()


@pytest.fixture(scope="module")
def excerpt(test_data):
    return PTBXL(test_data / "ecg_ptbxl100")


def test_the_excerpt_has_its_documented_counts(excerpt, tmp_path):
    manifest = build(excerpt, tmp_path)
    # 265 training records, of which one, a normal ECG of a patient with no other, has an empty report.
    (line,) = (tmp_path / REJECTED).read_text().splitlines()
    assert json.loads(line) == {"example": "ecg 443", "reason": "the report of ecg 443 is empty"}
    assert {k: s.examples for k, s in manifest.splits.items()} == {"train": 264, "validation": 44, "test": 44}
    positive = {k: sum(s.positive[k] for s in manifest.splits.values()) for k in manifest.labels}
    assert positive == {"NORM": 224, "MI": 49, "STTC": 59, "CD": 57, "HYP": 25}
    assert sum(s.patients for s in manifest.splits.values()) == len({s.patient for s in excerpt.studies()}) - 1 == 338
    manifests.verify(manifest, tmp_path)


def test_the_excerpt_is_in_millivolt(excerpt):
    signal = excerpt.studies()[0].read().items["ecg"][0].load()
    assert signal.shape == (12, 1000) and 0.3 < np.abs(signal).max() < 5
    i, ii, iii = (signal[LEADS.index(lead)] for lead in ("I", "II", "III"))
    # Einthoven, up to the archive's rounding to 1 uV and its filters.
    np.testing.assert_allclose(i + iii, ii, atol=0.01)


def test_the_excerpts_labels_are_those_of_its_columns(excerpt):
    with (excerpt.path / "ptbxl_database.csv").open() as f:
        for row, study in list(zip(csv.DictReader(f), excerpt.studies(), strict=True))[:60]:
            labels = study.read().labels
            assert {k: int(np.nan_to_num(v)) for k, v in labels.items()} == {k: int(row[k]) for k in labels}


def test_folds_of_the_excerpt_are_disjoint_and_cover_every_patient(excerpt):
    from medjax.data.building.splits import assign

    studies = excerpt.studies()
    test_patients = []
    for fold in range(5):
        splits = assign(studies, Splitting("fold", fold=fold, folds=5))
        by_split = {k: {s.patient for s, x in zip(studies, splits, strict=True) if x == k} for k in set(splits)}
        assert not by_split["test"] & (by_split["train"] | by_split["validation"])
        test_patients += by_split["test"]
    assert sorted(test_patients) == sorted({s.patient for s in studies})
