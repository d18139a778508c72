"""Leaving out examples and items: what is dropped is gone from every file, what is kept is unchanged."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from medjax.data import manifest as manifests
from medjax.data.building.build import Options, build_dataset
from medjax.data.building.patients import read_patients
from medjax.data.building.rewrite import rewrite
from medjax.data.curation.inspection import scan
from medjax.data.ids import as_number
from medjax.data.items import ChunkFiles, items_of
from medjax.data.manifest import Modality
from medjax.data.records import Example
from medjax.data.sources.base import Schema, Study
from medjax.data.volumes import Volume
from medjax.errors import UserError


class _Volumes:
    """Twelve patients with one volume and two pictures each."""

    schema = Schema("volumes", "made up", "CC0-1.0", {"volume": Modality("volume"), "image": Modality("image")})

    def studies(self):
        splits = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
        return [Study(f"s{i}", f"p{i}", split, lambda i=i: self._read(i)) for i, split in enumerate(splits)]

    def _read(self, i):
        voxels = np.random.default_rng(i).integers(-1000, 1000, (40, 33, 35)).astype(np.int16)
        pictures = [np.full(5, 2 * i + k, np.uint8) for k in range(2)]
        return Example(f"s{i}", f"p{i}", {"volume": [Volume(voxels, (1, 2, 3), "HU")], "image": pictures})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("volumes") / "data"
    build_dataset(_Volumes(), directory, Options(records_per_shard=3), lambda done, total: None)
    return directory


@pytest.fixture
def directory(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "data"))


def _content(directory, split):
    """{study: (voxels, pictures)} of a split."""
    manifest = manifests.load(directory)
    manifests.verify(manifest, directory)
    chunks, out = ChunkFiles(directory, manifest.splits[split]), {}
    for record in scan(directory, manifest, split):
        (volume,) = items_of(record, "volume", chunks=chunks)
        out[as_number(record["id/example"])] = volume.values, items_of(record, "image")
    return out


def _same(a, b):
    return np.array_equal(a[0], b[0]) and len(a[1]) == len(b[1]) and all(map(np.array_equal, a[1], b[1]))


def test_dropped_examples_are_gone_and_the_rest_is_as_it_was(directory):
    before, manifest = _content(directory, "train"), manifests.load(directory)
    gone = list(before)[1]
    untouched = manifest.splits["train"].shards[1:]
    new = rewrite(
        directory, manifest, lambda s, i, r: None if as_number(r["id/example"]) == gone else {}, "one left out"
    )
    after = _content(directory, "train")
    assert set(after) == set(before) - {gone} and all(_same(after[k], before[k]) for k in after)
    train = new.splits["train"]
    assert (train.examples, train.patients, train.present) == (7, 7, {"volume": 7, "image": 7})
    assert train.shards[1:] == untouched and train.shards[0]["file"] != manifest.splits["train"].shards[0]["file"]
    assert len(read_patients(directory, new, "train")) == 7 and "one left out" in new.notes
    named = {e["file"] for s in new.splits.values() for x in s.shards for e in (x, x["chunks"])}
    assert {p.name for p in directory.glob("*.array_record")} == named


def test_items_are_left_out_one_by_one(directory):
    before, manifest = _content(directory, "test"), manifests.load(directory)
    rewrite(directory, manifest, lambda s, i, r: {"image": [1]} if s == "test" and i == 0 else {}, "left out")
    after = _content(directory, "test")
    first, second = before
    assert [x.tolist() for x in after[first][1]] == [before[first][1][1].tolist()]
    assert np.array_equal(after[first][0], before[first][0]) and _same(after[second], before[second])


def test_a_shard_may_vanish_but_no_split(directory):
    manifest = manifests.load(directory)
    new = rewrite(directory, manifest, lambda s, i, r: None if s == "train" and i < 3 else {}, "left out")
    assert len(new.splits["train"].shards) == 2 and len(_content(directory, "train")) == 5
    files = {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}
    with pytest.raises(UserError, match="nothing would be left of the test split"):
        rewrite(directory, new, lambda s, i, r: None if s == "test" else {}, "left out")
    assert {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()} == files


def test_a_kill_leaves_the_old_or_the_new_data_set(directory, monkeypatch):
    manifest, before = manifests.load(directory), _content(directory, "train")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medjax.data.building.rewrite._sweep", lambda *_: None)
    monkeypatch.setattr("medjax.data.manifest.Manifest.save", killed)
    with pytest.raises(KeyboardInterrupt):
        rewrite(directory, manifest, lambda s, i, r: None if i == 0 else {}, "left out")
    monkeypatch.undo()
    assert all(_same(x, before[k]) for k, x in _content(directory, "train").items())
    rewrite(directory, manifests.load(directory), lambda s, i, r: None if s == "train" and i == 0 else {}, "left out")
    assert len(_content(directory, "train")) == 7 and len(list(directory.glob("patients-*.npy"))) == 3
