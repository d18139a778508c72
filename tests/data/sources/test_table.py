"""A table of one's own: from a CSV with pictures, texts and numbers to batches."""

import csv
import dataclasses
import io
import json

import numpy as np
import pandas
import pytest
from fuzz_seeds import SEEDS
from PIL import Image
from tiny_source import write_wfdb

from medjax.data import DataConfig, Dataset
from medjax.data.building.build import REJECTED, Options, build_dataset
from medjax.data.readers.image import decode
from medjax.data.records import decode_text
from medjax.data.sources import Columns, Table
from medjax.errors import UserError

COLUMNS = Columns(
    image=("frontal", "lateral"),
    text=("findings", "impression"),
    numeric=("crp", "sodium"),
    label=("sick",),
    patient="patient",
    example="id",
    split="split",
    time="day",
)


def rows() -> list[dict[str, str]]:
    """24 studies of 12 patients; gaps in every kind of column."""
    out = []
    for i in range(24):
        out.append(
            {
                "id": f"s{i}",
                "patient": f"p{i // 2}",
                "split": ("train", "train", "Val", "test")[i // 2 % 4],
                "day": str(i % 2 * 30),
                "frontal": f"img/{i}_f.png",
                "lateral": "" if i % 3 == 0 else f"img/{i}_l.png",
                "findings": f"study {i} shows an effusion",
                "impression": "" if i % 4 == 0 else "effusion",
                "crp": "" if i % 5 == 0 else str(float(i)),
                "sodium": "inf" if i == 3 else "140",
                "sick": "" if i == 7 else str(i % 2),
            }
        )
    return out


def write(folder, table=None, **overrides):
    table = table or rows()
    for i, changes in overrides.items():
        table[int(i[1:])].update(changes)
    (folder / "img").mkdir(exist_ok=True)
    for i, row in enumerate(table):
        for view, name in enumerate(("frontal", "lateral")):
            path = folder / row[name]
            if row[name] and path.suffix == ".png" and not path.exists() and path.parent.name == "img":
                Image.fromarray(np.full((12, 10 + view), 2 * i + view, np.uint8)).save(path)
    path = folder / "studies.csv"
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, table[0])
        writer.writeheader()
        writer.writerows(table)
    return path


def table(path, columns=COLUMNS, **options):
    return Table(path, columns, "mine", "CC0-1.0", **{"sensitive": False, **options})


def build(source, directory, **options):
    return build_dataset(source, directory, Options(**options), lambda done, total: None)


def test_from_files_to_batches(tmp_path):
    manifest = build(table(write(tmp_path)), tmp_path / "data")
    assert set(manifest.modalities) == {"image", "text", "labs"}
    assert {k: (s.examples, s.patients) for k, s in manifest.splits.items()} == {
        "train": (12, 6),
        "validation": (6, 3),
        "test": (6, 3),
    }
    config = DataConfig(
        dir=str(tmp_path / "data"),
        modalities={"image": dict(size=12, fit="stretch", mean=0.0, std=1.0), "labs": {}, "text": dict(length=16)},
        max_items={"image": 2, "text": 2},
    )
    batch = next(Dataset.open(config).evaluation("train", 12))
    kept = [i for i, row in enumerate(rows()) if row["split"] == "train"]
    assert batch.valid.all()
    for j, i in enumerate(kept):
        row = rows()[i]
        assert batch.items["image"].mask[j].tolist() == [True, bool(row["lateral"])]
        assert batch.items["text"].mask[j].tolist() == [True, bool(row["impression"])]
        for view in range(1 + bool(row["lateral"])):
            np.testing.assert_allclose(batch.items["image"].value[j, view] * 255, 2 * i + view, atol=1e-3)
        assert batch.items["labs"].value["observed"][j, 0].tolist() == [bool(row["crp"]), True]
        assert batch.targets["labels_mask"][j, 0] == bool(row["sick"])
        assert batch.targets["labels"][j, 0] == float(row["sick"] or 0)
        assert batch.time[j] == float(row["day"])
    same = batch.ids["patient"][:, None] == batch.ids["patient"][None]
    patients = np.array([rows()[i]["patient"] for i in kept])
    np.testing.assert_array_equal(same.all(-1), patients[:, None] == patients[None])


def test_raw_items_are_those_of_the_row(tmp_path):
    example = table(write(tmp_path)).studies()[4].read()
    assert [decode_text(t) for t in example.items["text"]] == ["study 4 shows an effusion"]
    assert [np.asarray(decode(x.load())).max() for x in example.items["image"]] == [8, 9]
    np.testing.assert_array_equal(example.items["labs"][0], np.array([4, 140], np.float32))


def test_an_ecg_column_names_records_without_their_ending(tmp_path, rng):
    signal = rng.normal(size=(12, 40)).clip(-3, 3)
    given = rows()
    for i, row in enumerate(given):
        row["record"] = f"ecg/r{i}" if i == 4 else ""
    write_wfdb(tmp_path / "ecg", "r4", signal)
    source = table(write(tmp_path, given), Columns(ecg=("record",), text=("findings",), patient="patient"))
    # 16-bit samples over +-3 mV: a step is 1e-4 mV.
    np.testing.assert_allclose(source.studies()[4].read().items["ecg"][0].load(), signal, atol=1e-4)
    assert "ecg" not in source.studies()[5].read().items


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(frontal="none.png"), "none.png does not exist"),
        (dict(frontal="studies.csv"), "studies.csv is a file for the reader 'csv_ecg'; image files are for image"),
        (dict(frontal="img/bad\0.gif"), "is no file name"),
        (dict(frontal="../secret.png"), "outside the folder of the table"),
        (dict(crp="<5"), "column 'crp' holds '<5'"),
        (dict(sick="maybe"), "'maybe'"),
        (dict(patient=""), "column 'patient' is empty"),
        (dict(frontal="", lateral="", findings=" ", impression="", crp="", sodium=""), "the row is empty"),
    ],
)
def test_a_bad_row_is_rejected_and_the_rest_is_built(tmp_path, changes, reason):
    manifest = build(table(write(tmp_path, _1=changes)), tmp_path / "data", max_rejected_fraction=0.1)
    (line,) = (tmp_path / "data" / REJECTED).read_text().splitlines()
    assert json.loads(line)["example"] == "s1" and reason in json.loads(line)["reason"]
    assert manifest.rejected == 1 and sum(s.examples for s in manifest.splits.values()) == 23


def test_white_space_does_not_make_another_patient(tmp_path):
    with pytest.raises(UserError, match="'p0' in train and test"):
        build(table(write(tmp_path, _1=dict(patient=" p0 ", split="test"))), tmp_path / "data")


def only(path, columns, **options):
    return table(path, columns, **options).studies()[0].read()


def write_row(folder, **row):
    path = folder / "t.csv"
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, row)
        writer.writeheader()
        writer.writerow(row)
    return path


def test_the_format_of_a_file_is_found_in_it(tmp_path, rng):
    (trace, *_), (volume, *_) = (SEEDS[kind](tmp_path, rng) for kind in ("csv_ecg", "nrrd"))
    deep = rng.integers(0, 65536, (6, 7), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "scan", "TIFF")
    (tmp_path / volume).rename(tmp_path / "volume.bin")
    path = write_row(tmp_path, i="scan", e=trace, v="volume.bin")
    columns = Columns(image=("i",), ecg=("e",), volume=("v",))
    items = only(
        path, columns, ecg_rate=50.0, options={"nrrd": {"unit": "HU"}, "csv_ecg": {"file_rate": 50.0, "unit": "mV"}}
    ).items
    assert {m: (x.reader, dict(x.options)) for m, (x,) in items.items()} == {
        "image": ("image", {}),
        "ecg": ("csv_ecg", {"rate": 50.0, "file_rate": 50.0, "unit": "mV"}),
        "volume": ("nrrd", {"unit": "HU"}),
    }
    png = items["image"][0].load()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.tobytes()))), deep)
    assert items["ecg"][0].load().shape[0] == 12 and items["volume"][0].load().unit == "HU"


@pytest.mark.parametrize("options", [{"nirfi": {}}, {"image": {"paeg": 1}}])
def test_unknown_readers_and_options_are_named(tmp_path, options):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"did you mean 'nifti'|unexpected keyword argument 'paeg'"):
        only(write_row(tmp_path, i="a.png"), Columns(image=("i",)), options=options).items["image"][0].load()


def test_sections_are_chosen_from_cells_and_from_report_files(tmp_path):
    (tmp_path / "r.txt").write_text("HISTORY: Cough.\n\nIMPRESSION: Effusion.\n\nFINDINGS: Blunted angle.\n")
    path = write_row(tmp_path, file="r.txt", cell="FINDINGS: Clear. IMPRESSION: Normal. HISTORY: Pain.")
    columns = Columns(text=("cell",), report=("file",))

    def texts(sections):
        return [decode_text(x) for x in only(path, columns, sections=sections).items["text"]]

    assert texts(("findings", "impression")) == ["Clear. Normal.", "Blunted angle. Effusion."]
    assert texts(("history",)) == ["Pain.", "Cough."]
    assert texts(())[1].startswith("HISTORY: Cough.")


def test_attributes_are_numbers_or_names(tmp_path):
    table_rows = [
        row | {"age": str(20 + i), "site": ("north", "east", "", "NA")[i % 4]} for i, row in enumerate(rows())
    ]
    table_rows[1]["age"] = ""
    source = table(write(tmp_path, table_rows), dataclasses.replace(COLUMNS, attribute=("age", "site")))
    manifest = build(source, tmp_path / "data")
    assert manifest.attributes == {"age": (), "site": ("east", "north")}
    found = Dataset.open(DataConfig(dir=str(tmp_path / "data"), modalities={"labs": {}})).attributes("train")
    kept = [i for i, row in enumerate(rows()) if row["split"] == "train"]
    np.testing.assert_array_equal(found["age"], [np.nan if i == 1 else 20 + i for i in kept])
    np.testing.assert_array_equal(found["site"], [(1, 0, np.nan, np.nan)[i % 4] for i in kept])


def test_an_attribute_of_too_many_names_is_refused(tmp_path):
    table_rows = [row | {"who": f"name {k}.{i}"} for k in range(3) for i, row in enumerate(rows())]
    path = write(tmp_path, table_rows)
    with pytest.raises(UserError, match="attribute column 'who' holds 72 different texts"):
        _ = table(path, dataclasses.replace(COLUMNS, attribute=("who",))).schema


def test_uncertain_labels_need_a_policy(tmp_path):
    path, columns = (
        write_row(tmp_path, a="-1", b="-1.0", c="0", text="t"),
        Columns(text=("text",), label=("a", "b", "c")),
    )
    for policy, value in (("ignore", np.nan), ("zeros", 0), ("ones", 1)):
        np.testing.assert_equal(only(path, columns, uncertain=policy).labels, {"a": value, "b": value, "c": 0})
    with pytest.raises(UserError, match="--uncertain_labels=ignore"):
        only(path, columns)
    with pytest.raises(UserError, match="did you mean 'zeros'"):
        table(path, columns, uncertain="zero")


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv.gz"])
def test_a_table_of_another_format_gives_the_same_examples(tmp_path, ending):
    path = write(tmp_path)
    other = tmp_path / f"studies.{ending}"
    frame = pandas.read_csv(path, keep_default_na=False, dtype=str)
    if ending == "jsonl":
        frame.to_json(other, orient="records", lines=True)
    elif ending == "parquet":
        frame.astype({"day": float, "sick": "string"}).to_parquet(other)
    else:
        frame.to_csv(other, index=False)
    for a, b in zip(table(path).studies(), table(other).studies(), strict=True):
        assert (a.name, a.patient, a.split) == (b.name, b.patient, b.split)
        x, y = a.read(), b.read()
        assert (x.time, x.items["image"]) == (y.time, y.items["image"])
        np.testing.assert_equal(x.labels, y.labels)
        np.testing.assert_array_equal(x.items["labs"], y.items["labs"])


def test_an_unknown_column_is_answered_with_the_nearest(tmp_path):
    columns = Columns(text=("finding",), patient="patient")
    with pytest.raises(UserError, match=r"no column 'finding'; did you mean 'findings'\?"):
        build(table(write(tmp_path), columns), tmp_path / "data")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"studies\.csv does not exist"):
        build(table(tmp_path / "studies.csv"), tmp_path / "data")


def test_columns_without_any_modality_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least one of --image_columns"):
        build(table(write(tmp_path), Columns(label=("sick",))), tmp_path / "data")


def test_without_patient_column_every_row_is_a_patient_and_the_manifest_says_so(tmp_path):
    manifest = build(table(write(tmp_path), Columns(text=("findings",), split="split")), tmp_path / "data")
    assert not manifest.patients_known and "No patient ids" in manifest.notes[0]
    assert sum(s.patients for s in manifest.splits.values()) == 24


def test_prompts_become_findings(tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"sick": {"positive": ["ill"], "negative": ["well"]}}))
    finding = build(table(write(tmp_path), prompts=str(prompts)), tmp_path / "data").findings["sick"]
    assert (finding.positive, finding.negative, finding.joint) == (("ill",), ("well",), False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "is not JSON"),
        ('{"sic": {"positive": ["a"], "negative": ["b"]}}', "did you mean 'sick'"),
        ('{"sick": {"positve": ["a"], "negative": ["b"]}}', "did you mean 'positive'"),
    ],
)
def test_bad_prompts_are_refused(tmp_path, content, message):
    prompts = tmp_path / "prompts.json"
    if content:
        prompts.write_text(content)
    with pytest.raises(UserError, match=message):
        build(table(write(tmp_path), prompts=str(prompts)), tmp_path / "data")


def test_hannover_images_and_labs(test_data, tmp_path):
    path = test_data / "cxr_labs_hannover" / "metadata.csv"
    labs = ("crp_val", "d-dimer_val", "factor_xii_val", "ldh_val", "lymphocytes_val", "neutrophils_val", "pco2_val")
    columns = Columns(
        image=("image",), numeric=(*labs, "po2_val"), label=("ever_icu",), patient="patient_id", split="split"
    )
    manifest = build(table(path, columns), tmp_path)
    assert {k: s.patients for k, s in manifest.splits.items()} == {"train": 37, "validation": 7, "test": 10}
    assert sum(s.examples for s in manifest.splits.values()) == 186 and manifest.rejected == 0
    assert sum(s.present["labs"] for s in manifest.splits.values()) == 137


def test_cxr_images_and_notes(test_data, tmp_path):
    path = test_data / "cxr_notes" / "metadata.csv"
    columns = Columns(
        image=("image",), text=("notes",), label=("covid",), patient="patient_id", example="id", split="split"
    )
    manifest = build(table(path, columns), tmp_path)
    assert {k: s.patients for k, s in manifest.splits.items()} == {"train": 55, "validation": 11, "test": 17}
    assert sum(s.present["text"] for s in manifest.splits.values()) == 173 and manifest.rejected == 0
    batches = list(
        Dataset.open(DataConfig(dir=str(tmp_path), modalities={"text": dict(length=8)})).evaluation("train", 64)
    )
    texts = {tuple(i) for b in batches for i in b.ids["text"][b.valid].tolist()}
    with path.open() as f:
        notes = [r["notes"] for r in csv.DictReader(f) if r["split"] == "train"]
    assert len(texts) == len({" ".join(n.split()).lower() for n in notes})
