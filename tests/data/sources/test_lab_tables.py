"""Lab tables of real patients: MIMIC-IV's demo by admission, and the offsets and detection limits of Hannover's."""

import csv
from pathlib import Path

import numpy as np
import pytest
from archives import build

from medjax.data.records import decode_text
from medjax.data.sources import Columns, Table
from medjax.data.sources.lab_events import SYMILE_LABS, Window, first_values
from medjax.data.sources.layout import day_of, stream_rows
from medjax.errors import UserError


@pytest.fixture(scope="module")
def demo(test_data) -> Path:
    return test_data / "labs_mimic_iv_demo"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def numbers(rows: list[dict[str, str]]) -> np.ndarray:
    """[admissions, 50]: the wide table's own values."""
    return np.array([[float(row[f"lab_{i}"] or "nan") for i in SYMILE_LABS] for row in rows], np.float32)


def test_the_fifty_tests_are_those_of_the_demo(demo):
    known = {row["itemid"]: (row["name"], row["unit"].replace("UNK", "")) for row in read(demo / "lab_items.csv")}
    assert known == dict(SYMILE_LABS)


def test_first_values_from_the_events_are_those_of_the_wide_table(demo):
    rows = read(demo / "admissions_first24h_labs.csv")
    windows = {
        row["admission_id"]: Window(row["subject_id"], day_of(row["admittime"]) - 1, day_of(row["admittime"]) + 1)
        for row in rows
    }
    columns = ("subject_id", "itemid", "time", "value")
    events = list(stream_rows(demo / "labevents_long.csv.gz", columns))
    found = first_values(events, windows, tuple(SYMILE_LABS))
    table = np.stack([found.get(row["admission_id"], np.full(50, np.nan, np.float32)) for row in rows])
    wide = numbers(rows)
    np.testing.assert_array_equal(np.isnan(table), np.isnan(wide))
    differ = np.argwhere(~np.isclose(table, wide, rtol=1e-6, equal_nan=True))
    assert (~np.isnan(table)).sum() > 7000 and len(differ) < 20
    # Where they differ, there are several values of the first time.
    for i, j in differ:
        window, item = windows[rows[i]["admission_id"]], list(SYMILE_LABS)[j]
        own = [e for e in events if e[:2] == (window.subject, item) and window.first <= day_of(e[2]) <= window.last]
        first = min(e[2] for e in own)
        values = {float(e[3]) for e in own if e[2] == first}
        assert values >= {float(table[i, j]), float(wide[i, j])}


@pytest.fixture(scope="module")
def admissions(demo) -> Table:
    columns = Columns(
        text=("dx_text",),
        numeric=tuple(f"lab_{i}" for i in SYMILE_LABS),
        label=("hospital_death", "icu"),
        patient="subject_id",
        example="admission_id",
        split="split",
        time="admittime",
    )
    return Table(demo / "admissions_first24h_labs.csv", columns, "mimic-demo", "ODbL-1.0", sensitive=False)


def test_admissions_become_labs_texts_labels_and_relative_days(admissions, demo):
    rows, wide = read(demo / "admissions_first24h_labs.csv"), numbers(read(demo / "admissions_first24h_labs.csv"))
    first: dict[str, float] = {}
    for row in rows:
        first[row["subject_id"]] = min(day_of(row["admittime"]), first.get(row["subject_id"], np.inf))
    for row, values, study in zip(rows, wide, admissions.studies(), strict=True):
        example = study.read()
        np.testing.assert_array_equal(example.items.get("labs", [np.full(50, np.nan)])[0], values)
        assert decode_text(example.items["text"][0]) == row["dx_text"].strip()
        assert example.labels == {k: float(row[k]) for k in ("hospital_death", "icu")}
        assert example.time == pytest.approx(day_of(row["admittime"]) - first[row["subject_id"]], abs=1.01)


def test_admissions_are_built_with_the_percentiles_of_the_training_split(admissions, demo, tmp_path):
    manifest = build(admissions, tmp_path)
    rows = read(demo / "admissions_first24h_labs.csv")
    train = numbers([row for row in rows if row["split"] == "train"])
    creatinine = train[:, list(SYMILE_LABS).index("50912")]
    expected = np.nanpercentile(creatinine.astype(np.float64), np.arange(1, 100))
    np.testing.assert_allclose(manifest.modalities["labs"].percentiles["lab_50912"], expected)
    assert sum(s.examples for s in manifest.splits.values()) == 222
    assert sum(s.positive["hospital_death"] for s in manifest.splits.values()) == 11


def test_values_beyond_a_detection_limit_stay_infinite_until_they_are_scaled(test_data):
    folder = test_data / "cxr_labs_hannover"
    rows = read(folder / "metadata.csv")
    names = tuple(k for k in rows[0] if k.endswith("_val"))
    columns = Columns(image=("image",), numeric=names, patient="patient_id", example="image_id", split="split")
    studies = Table(folder / "metadata.csv", columns, "hannover", "CC-BY-3.0", sensitive=False).studies()
    beyond = 0
    for row, study in zip(rows, studies, strict=True):
        values = np.array([float(row[k] or "nan") for k in names], np.float32)
        labs = study.read().items.get("labs", [np.full(len(names), np.nan, np.float32)])[0]
        np.testing.assert_array_equal(labs, values)
        beyond += np.isinf(labs).sum()
    assert len(names) == 8 and beyond > 0


def test_windows_without_a_value_are_left_out_and_bounds_are_included():
    windows = {"a": Window("1", 10.0, 12.0), "b": Window("1", 20.0, 22.0), "c": Window("2", 10.0, 12.0)}
    start = day_of("0001-01-10 00:00:00") - 10
    assert start == 0
    events = [("1", "x", "0001-01-12 00:00:00", "5"), ("1", "x", "0001-01-12 00:00:01", "4"), ("2", "y", "", "1")]
    found = first_values(events, windows, ("x", "y"))
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], np.float32([5, np.nan]))


def test_a_time_that_is_none_is_named_without_repeating_it():
    with pytest.raises(UserError, match="lab events holds a cell that is no time") as caught:
        first_values([("1", "x", "Smith 1950", "5")], {"a": Window("1", 0, 1)}, ("x",))
    assert "Smith" not in str(caught.value)
