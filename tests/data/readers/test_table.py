"""Tables keep their cells; missing columns, ragged rows and wrong values are named."""

import math

import pytest

from medjax.data.readers.table import binary, check_columns, number, read_csv
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
