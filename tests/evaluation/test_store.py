"""Tables on disk come back as they went, in every format, and what does not fit is named."""

import numpy as np
import pytest

from medjax.errors import UserError
from medjax.evaluation import store


@pytest.fixture
def table(rng) -> dict[str, np.ndarray]:
    n = 7
    return {
        "embedding/image": rng.standard_normal((n, 5)).astype(np.float32),
        "embedding/text": rng.standard_normal((n, 5)).astype(np.float32),
        "present/image": np.arange(n) % 2 == 0,
        "present/text": np.ones(n, bool),
        "example": rng.integers(0, 2**32, (n, 2), np.uint32),
        "patient": np.array([0, 0, 1, 2, 2, 3, 4]),
        "text": np.arange(n),
        "row": np.array([0, 1, 3, 4, 5, 7, 8]),
        "label/effusion": np.array([0, 1, np.nan, 1, 0, 0, 1], np.float32),
        "attribute/age": np.array([50.5, np.nan, 3, 4, 5, 6, 7], np.float32),
    }


@pytest.mark.parametrize("rows", [7, 1], ids=["seven", "one"])
@pytest.mark.parametrize("kind", store.ENDINGS)
def test_columns_come_back_bit_for_bit(tmp_path, table, kind, rows):
    table = {k: v[:rows] for k, v in table.items()}
    path = tmp_path / f"part{store.ENDINGS[kind]}"
    entry = store.write_part(path, table, kind)
    assert (entry["file"], entry["examples"], entry["bytes"]) == (path.name, rows, path.stat().st_size)
    found = store.read_part(path, kind)
    assert set(found) == set(table)
    for k, x in table.items():
        assert found[k].dtype == x.dtype and found[k].shape == x.shape, k
        np.testing.assert_array_equal(found[k], x)
    back = store.columns(store.from_columns(found, "here"))
    for k, x in table.items():
        np.testing.assert_array_equal(back[k], x)


def _index(table, entries, kind="npz") -> store.Index:
    widths = {"image": 5, "text": 5}
    return store.Index({}, kind, widths, ("effusion",), {"test": tuple(entries)}, attributes={"age": ()})


def test_a_split_of_several_parts_is_one_table_and_a_changed_part_is_refused(tmp_path, table):
    parts = [{k: v[a:b] for k, v in table.items()} for a, b in ((0, 4), (4, 7))]
    entries = [store.write_part(tmp_path / f"test-{i}.npz", p, "npz") for i, p in enumerate(parts)]
    _index(table, entries).save(tmp_path)
    found = store.read(tmp_path, "test")
    np.testing.assert_array_equal(found.embeddings["text"], table["embedding/text"])
    np.testing.assert_array_equal(found.rows, table["row"])
    with pytest.raises(UserError, match="unknown split 'train'"):
        store.read(tmp_path, "train")
    np.savez(tmp_path / "test-1.npz", **{k: v[:1] for k, v in table.items()})
    with pytest.raises(UserError, match=r"test-1\.npz is missing or differs from its checksum"):
        store.read(tmp_path, "test")


def test_only_an_embedding_is_needed_of_somebody_elses_encoder(tmp_path, rng):
    x = rng.standard_normal((4, 3))
    np.savez(tmp_path / "theirs.npz", **{"embedding/image": x})
    found = store.read_npz(tmp_path / "theirs.npz")
    np.testing.assert_array_equal(found.embeddings["image"], x.astype(np.float32))
    assert found.present["image"].all() and len(set(found.patients)) == 4 and found.labels.shape == (4, 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"embeding/image": np.zeros((2, 3))}, "unknown column 'embeding/image'"),
        ({"label/x": np.zeros(2)}, "no column embedding/MODALITY"),
        ({"embedding/image": np.zeros((2, 3)), "label/x": np.zeros(3)}, r"label/x of .* has shape \(3,\)"),
        ({"embedding/image": np.full((2, 3), np.nan)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_named(columns, message):
    with pytest.raises(UserError, match=message):
        store.from_columns(columns, "theirs.npz")


def test_damage_and_pickles_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(UserError, match="cannot be read as npz"):
        store.read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{"embedding/image": np.array([{}], object)})
    with pytest.raises(UserError, match="cannot be read as npz"):
        store.read_npz(tmp_path / "b.npz")
    (tmp_path / store.INDEX).write_text('{"format": "other"}')
    with pytest.raises(UserError, match="has format 'other'"):
        store.read_index(tmp_path)
