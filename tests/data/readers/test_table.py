"""Tables keep their cells; missing columns, ragged rows and wrong values are named."""

import csv
import datetime
import gzip
import io
import json
import math

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from medjax.data.readers import table
from medjax.data.readers.table import binary, check_columns, iterate_table, number, read_csv, read_table
from medjax.errors import UserError


@pytest.fixture
def write(tmp_path):
    def put(data: str | bytes):
        path = tmp_path / "t.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return put


def test_quotes_new_lines_and_umlauts_are_kept(write):
    rows = read_csv(write('id,report\n1,"Größe, ""normal""\nkein Erguss"\n2,\n'))
    assert rows == [{"id": "1", "report": 'Größe, "normal"\nkein Erguss'}, {"id": "2", "report": ""}]


def test_a_byte_order_mark_is_no_part_of_the_first_name(write):
    assert read_csv(write(b"\xef\xbb\xbfid,x\n1,2\n")) == [{"id": "1", "x": "2"}]


def test_the_first_column_may_lack_a_name(write):
    assert read_csv(write(",x\nNORM,1\n")) == [{"": "NORM", "x": "1"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "has no rows"),
        ("id,x\n", "has no rows"),
        ("id,x\n1,2\n3\n", "line 3 has 1 cells, its header 2"),
        (b"id\n\xff\xfe\n", "cannot be read as UTF-8"),
    ],
)
def test_tables_that_cannot_be_read_are_named(write, data, message):
    with pytest.raises(UserError, match=rf"t\.csv.*{message}"):
        read_csv(write(data))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        read_csv(tmp_path / "none.csv")


def test_an_unknown_column_is_answered_with_the_nearest(write):
    path = write("patient_id,report\n1,a\n")
    rows = read_csv(path)
    check_columns(rows, ["report", "patient_id"], path)
    with pytest.raises(UserError, match=r"no column 'patientid'; did you mean 'patient_id'\?"):
        check_columns(rows, ["report", "patientid"], path)


@pytest.mark.parametrize("cell", ["", "  ", "NaN", "na", "None", "NULL"])
def test_empty_cells_are_missing(cell):
    assert math.isnan(number(cell, "x")) and math.isnan(binary(cell, "x"))


@pytest.mark.parametrize(
    ("cell", "value"), [("1.5", 1.5), (" -2 ", -2), ("1e3", 1000), ("inf", math.inf), ("-inf", -math.inf)]
)
def test_numbers_and_detection_limits(cell, value):
    assert number(cell, "x") == value


@pytest.mark.parametrize("cell", ["<5", "1,5", "positive"])
def test_what_is_no_number_is_named_with_its_column(cell):
    with pytest.raises(UserError, match=f"column 'crp' holds '{cell}', which is no number"):
        number(cell, "crp")


@pytest.mark.parametrize(("cell", "value"), [("1", 1), ("0", 0), ("1.0", 1), ("True", 1), ("no", 0)])
def test_labels(cell, value):
    assert binary(cell, "x") == value


@pytest.mark.parametrize("cell", ["-1", "2", "0.5", "maybe"])
def test_other_labels_are_refused(cell):
    with pytest.raises(UserError, match="'sick'"):
        binary(cell, "sick")


ROWS = [{"id": "1", "report": 'Größe, "normal"\nkein Erguss', "crp": "1.5"}, {"id": "2", "report": "", "crp": ""}]


def save(path, rows=ROWS):
    """The same rows in every format, with numbers as numbers where the format has some."""
    typed = [{"id": int(r["id"]), "report": r["report"] or None, "crp": float(r["crp"] or "nan")} for r in rows]
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[1]
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(typed), path, row_group_size=1)
        return path
    text = io.StringIO(newline="")
    if kind in ("jsonl", "ndjson"):
        text.write("\n".join(json.dumps(row) for row in typed) + "\n\n")
    else:
        writer = csv.DictWriter(text, rows[0], delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv", "T.CSV", "t.csv.gz", "t.tsv.gz", "t.jsonl", "t.ndjson", "t.jsonl.gz", "t.parquet"]
)
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = save(tmp_path / name) if name != "T.CSV" else save(tmp_path / "t.csv").rename(tmp_path / name)
    assert read_table(path) == ROWS
    assert read_table(path, ["crp", "id"]) == [{"crp": r["crp"], "id": r["id"]} for r in ROWS]
    with pytest.raises(UserError, match=r"no column 'repport'; did you mean 'report'\?"):
        read_table(path, ["id", "repport"])


def test_parquet_types_become_cells(tmp_path):
    day = datetime.date(2031, 5, 6)
    columns = {
        "patient": pyarrow.array([7.0, None]),  # what pandas makes of whole numbers where one is missing
        "sick": pyarrow.array([True, False]),
        "view": pyarrow.array(["PA", "PA"]).dictionary_encode(),
        "day": pyarrow.array([day, None]),
        "large": pyarrow.array([2**62 + 1, -1]),
        "tags": pyarrow.array([["a"], []]),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    rows = read_table(tmp_path / "t.parquet", ["patient", "sick", "view", "day", "large"])
    assert rows[0] == {"patient": "7", "sick": "1", "view": "PA", "day": "2031-05-06", "large": str(2**62 + 1)}
    assert rows[1] == {"patient": "", "sick": "0", "view": "PA", "day": "", "large": "-1"}
    with pytest.raises(UserError, match="'tags' holds a list"):
        read_table(tmp_path / "t.parquet")


def test_json_lines_may_lack_a_key(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 1, "text": "a", "meta": {"x": 1}}\n{"id": 2}\n')
    assert read_table(path, ["id", "text"]) == [{"id": "1", "text": "a"}, {"id": "2", "text": ""}]
    with pytest.raises(UserError, match="'meta' holds a dict"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.xlsx", b"PK", r"ends with '\.xlsx'; readable are \.csv"),
        ("t.jsonl", b"[1, 2]\n", "line 1 is no JSON object"),
        ("t.jsonl", b'{"a": 1}\n{"a"\n', "line 2 is not JSON"),
        ("t.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("t.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "line 1 is not JSON"),
        ("t.jsonl", b"", "has no rows"),
        ("t.csv.gz", b"no gzip", "cannot be read"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 9, mtime=0)[:-12], "cannot be read"),
        ("t.csv.gz", gzip.compress(bytes(2**25), mtime=0), "line of more than 16 MiB"),
        ("t.csv", b"a,b,a\n1,2,3\n", "2 columns 'a'"),
        ("t.parquet", b"PAR1 no table PAR1", "cannot be read as Parquet"),
        ("t.parquet", b"", "cannot be read as Parquet"),
    ],
)
def test_tables_of_every_format_that_cannot_be_read_are_named_in_one_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_rows_beyond_the_limit_are_refused_while_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_MAX_MEMORY", 10_000)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 10**6))
    with pytest.raises(UserError, match="split it, or name fewer columns"):
        read_table(tmp_path / "t.csv.gz")


def test_a_large_table_is_read_row_by_row(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000 + b"torn\n"))
    rows = iterate_table(tmp_path / "t.csv.gz")
    assert [next(rows) for _ in range(1000)] == [{"a": "1", "b": "2"}] * 1000
    with pytest.raises(UserError, match="line 1002 has 1 cells"):
        next(rows)


def test_a_row_group_that_claims_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_MAX_ROW_GROUP", 10)
    with pytest.raises(UserError, match=r"row group of .* bytes, the limit is 10"):
        read_table(save(tmp_path / "t.parquet"))


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl", "t.parquet"])
def test_no_mutation_of_a_table_does_more_than_to_be_refused(tmp_path, rng, name):
    original = save(tmp_path / name).read_bytes()
    for _ in range(100):
        data = bytearray(original)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
        try:
            read_table(tmp_path / name)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(("policy", "value"), [("ignore", math.nan), ("zeros", 0.0), ("ones", 1.0)])
def test_uncertain_labels_become_what_was_said(policy, value):
    for cell in ("-1", "-1.0", " -1 "):
        np.testing.assert_equal(binary(cell, "x", policy), value)
    assert binary("1", "x", policy) == 1 and binary("0", "x", policy) == 0 and math.isnan(binary("", "x", policy))
    with pytest.raises(UserError, match="'x'"):
        binary("-2", "x", policy)


def test_an_uncertain_label_without_a_policy_names_the_flag():
    with pytest.raises(UserError, match=r"'sick' holds -1.*--uncertain_labels=ignore\|zeros\|ones"):
        binary("-1.0", "sick")


def test_real_tables_read_as_pandas_reads_them(test_data):
    for name in ("cxr_notes/metadata.csv", "cxr_labs_hannover/metadata.csv", "text_roco_captions/captions.csv"):
        rows = read_table(test_data / name)
        frame = pandas.read_csv(test_data / name, dtype=str, keep_default_na=False)
        assert rows == frame.to_dict("records")


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_rows_that_lie_across_blocks_are_whole(tmp_path, monkeypatch, block):
    monkeypatch.setattr(table, "_BLOCK", block)
    (tmp_path / "t.csv").write_bytes('id,x\r\n1,"a\r\nÖ,""b"\r\n2,\r\n'.encode() * 3)
    header, *rows = csv.reader(io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline=""))
    assert [list(row.values()) for row in read_table(tmp_path / "t.csv")] == rows and header == ["id", "x"]
