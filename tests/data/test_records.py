"""Records come back as they were written."""

import hashlib

import grain
import numpy as np
import pytest

from medjax.data.records import RecordFile, decode, decode_text, encode, encode_text, sha256, write_file
from medjax.errors import UserError


def test_round_trip_keeps_every_bit_type_and_shape(rng):
    arrays = {
        "ecg/0": rng.normal(size=(12, 50)).astype(np.float32),
        "labs/0": np.array([np.nan, -np.inf, 1.5], np.float32),
        "text/0": encode_text("Befund: größer, naïve, 肺"),
        "id/patient": np.array([1, 2**32 - 1], np.uint32),
        "boxes/x": np.zeros((0, 4), np.float32),
    }
    back = decode(encode(arrays))
    assert set(back) == set(arrays)
    for key, value in arrays.items():
        assert back[key].dtype == value.dtype and back[key].shape == value.shape
        assert back[key].tobytes() == value.tobytes()
    assert decode_text(back["text/0"]) == "Befund: größer, naïve, 肺"


def test_a_transposed_array_keeps_its_values(rng):
    value = rng.normal(size=(3, 5)).astype(np.float32).T
    np.testing.assert_array_equal(decode(encode({"x": value}))["x"], value)


def test_the_order_of_keys_does_not_change_the_bytes():
    a, b = np.zeros(2, np.float32), np.ones(3, np.float32)
    assert encode({"a": a, "b": b}) == encode({"b": b, "a": a})


@pytest.mark.parametrize("data", [b"", b"nonsense", encode({"a": np.ones(4, np.float32)})[:-3]])
def test_bytes_that_are_no_record_are_refused(data):
    with pytest.raises(UserError, match="not a medjax record"):
        decode(data)


def test_a_file_holds_its_records_in_order_with_size_and_checksum(tmp_path):
    records = [encode({"i": np.array([i])}) for i in range(8)]
    with RecordFile(tmp_path / "train.array_record") as file:
        for record in records:
            file.write(record)
        assert not (tmp_path / "train.array_record").exists()
        entry = file.finish()
    data = (tmp_path / "train.array_record").read_bytes()
    assert entry == {
        "file": "train.array_record",
        "records": 8,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    source = grain.sources.ArrayRecordDataSource([str(tmp_path / "train.array_record")])
    assert [source[i] for i in range(8)] == records


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), RecordFile(tmp_path / "train.array_record") as file:
        file.write(b"a record")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "rejected.jsonl"
    for text in (b"one", b"two, longer"):
        entry = write_file(path, text)
        assert path.read_bytes() == text and entry["bytes"] == len(text) and entry["sha256"] == sha256(path)
    assert list(tmp_path.iterdir()) == [path]
