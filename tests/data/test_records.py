"""Records come back as they were written."""

import hashlib

import grain
import numpy as np
import pytest

from medjax.data.records import ShardWriter, decode, decode_text, encode, encode_text, items_of
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


def test_items_come_in_order_past_ten():
    record = {f"image/{i}": np.array([i]) for i in reversed(range(12))}
    assert [int(x[0]) for x in items_of(record, "image")] == list(range(12))
    assert items_of(record, "imag") == []


@pytest.mark.parametrize("data", [b"", b"nonsense", encode({"a": np.ones(4, np.float32)})[:-3]])
def test_bytes_that_are_no_record_are_refused(data):
    with pytest.raises(UserError, match="not a medjax record"):
        decode(data)


def test_shards_hold_their_records_in_order_with_size_and_checksum(tmp_path):
    writer = ShardWriter(tmp_path, "train", per_shard=3)
    records = [encode({"i": np.array([i])}) for i in range(8)]
    for record in records:
        writer.write(record)
    writer.close()
    assert [s["records"] for s in writer.shards] == [3, 3, 2]
    for shard in writer.shards:
        data = (tmp_path / shard["file"]).read_bytes()
        assert len(data) == shard["bytes"]
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
    source = grain.sources.ArrayRecordDataSource([str(tmp_path / s["file"]) for s in writer.shards])
    assert [source[i] for i in range(8)] == records
