"""Data sets and single files in an object store give what they give from this machine, and fail in one line."""

import json
import pickle
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medjax.data import DataConfig, Dataset, remote
from medjax.data import manifest as manifests
from medjax.data.building.build import Options, build_dataset
from medjax.data.curation.inspection import scan
from medjax.data.items import FileItem
from medjax.data.manifest import Modality
from medjax.data.records import Example
from medjax.data.sources import Phantom, Schema, Study
from medjax.errors import StorageError, UserError

MODALITIES = {"image": {"size": 16}}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A phantom in several shards. Read it, never write to it."""
    directory = tmp_path_factory.mktemp("built") / "data"
    build_dataset(Phantom(patients=30, size=16), directory, Options(records_per_shard=8), lambda done, total: None)
    return directory


@pytest.fixture
def bucket(gcs, built, tmp_path, monkeypatch):
    """The same in a bucket; copies go to a cache of the test."""
    monkeypatch.setenv("MEDJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDJAX_STORAGE_ATTEMPTS", "2")
    upload(gcs, built, "sets/phantom")
    remote.origin.cache_clear()
    return gcs


def upload(gcs, folder: Path, to: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            gcs.put("bucket", f"{to}/{path.relative_to(folder)}", path.read_bytes())


def opened(where: str | Path, **options) -> Dataset:
    return Dataset.open(DataConfig(dir=str(where), modalities=MODALITIES, batch_size=8, threads=1, **options))


def fetched(gcs, ending: str = ".array_record") -> list[str]:
    return [r for r in gcs.requests if "/download/" in r and ending in r]


def assert_equal_batches(one, other) -> None:
    assert np.array_equal(one.items["image"].value, other.items["image"].value)
    assert np.array_equal(one.ids["example"], other.ids["example"])
    assert np.array_equal(one.valid, other.valid) and one.valid[0]


def test_a_remote_set_gives_the_batches_of_a_local_one(bucket, built):
    here, there = opened(built), opened("gs://bucket/sets/phantom")
    assert there.manifest == here.manifest and len(here.manifest.splits["train"].shards) > 2
    assert not fetched(bucket)  # opening needs the manifest alone
    streams = here.train(0, 0, 8), there.train(0, 0, 8)
    for _ in range(3):
        assert_equal_batches(*(next(s) for s in streams))
    for one, other in zip(here.evaluation("test", 8), there.evaluation("test", 8), strict=True):
        assert_equal_batches(one, other)
    for stream in streams:
        stream.close()
    known = [r["id/example"].tobytes() for r in scan(built, here.manifest, "validation")]
    assert [r["id/example"].tobytes() for r in scan(there.directory, there.manifest, "validation")] == known
    manifests.verify(there.manifest, there.directory)


def test_every_shard_is_fetched_once_and_stays(bucket):
    for attempt in range(2):
        dataset = opened("gs://bucket/sets/phantom")
        source = pickle.loads(pickle.dumps(dataset.source("train")))  # as a worker process gets it
        threads = [threading.Thread(target=list, args=(source,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fetched(bucket)) == len(dataset.manifest.splits["train"].shards), attempt
        remote.origin.cache_clear()


def test_only_the_shard_that_is_needed_is_fetched(bucket):
    dataset = opened("gs://bucket/sets/phantom")
    dataset.source("train")[len(dataset.source("train")) - 1]
    assert [r.split("/")[-1].split("?")[0] for r in fetched(bucket)] == [
        dataset.manifest.splits["train"].shards[-1]["file"]
    ]


def test_a_damaged_shard_stops_the_run_and_is_not_kept(bucket):
    dataset = opened("gs://bucket/sets/phantom")
    shard = dataset.manifest.splits["train"].shards[0]["file"]
    bucket.fail(f"/download/.*{shard}", "garble", times=2)
    with pytest.raises(StorageError, match=f"{shard} differs from its checksum, twice"):
        dataset.examples("train").row(0, None)
    assert not list(dataset.directory.glob("[!.]*.array_record*"))
    assert dataset.examples("train").row(0, None)["valid"]  # the storage is well again


def test_a_storage_that_is_away_stops_the_run(bucket):
    dataset = opened("gs://bucket/sets/phantom")
    bucket.fail("/download/", 503, times=10**6)
    with pytest.raises(StorageError, match=r"reading gs://bucket/sets/phantom/.* failed 2 times, the last time: .*503"):
        next(dataset.train(0, 0, 8))


def test_what_is_missing_or_of_another_size_is_seen_when_it_is_opened(bucket, built):
    shard = manifests.read(built).splits["train"].shards[0]["file"]
    bucket.put("bucket", f"sets/phantom/{shard}", b"short")
    with pytest.raises(UserError, match=f"{shard} has 5 bytes"):
        opened("gs://bucket/sets/phantom")
    with pytest.raises(UserError, match=r"no data set at gs://bucket/none: manifest\.json is missing"):
        opened("gs://bucket/none")


def test_a_set_that_was_built_anew_gets_a_folder_of_its_own(bucket, built, tmp_path):
    before = opened("gs://bucket/sets/phantom")
    shutil.copytree(built, tmp_path / "new")
    manifest = json.loads((built / manifests.FILE).read_text()) | {"notes": ["built anew"]}
    bucket.put("bucket", f"sets/phantom/{manifests.FILE}", json.dumps(manifest).encode())
    after = opened("gs://bucket/sets/phantom")
    assert after.directory != before.directory and after.manifest.notes == ("built anew",)


def test_a_full_disk_is_noticed_before_anything_is_fetched(bucket, monkeypatch):
    dataset = opened("gs://bucket/sets/phantom")
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(UserError, match=r"GB free; name another with config\.data\.cache_dir"):
        dataset.examples("train")
    assert not fetched(bucket)


class Pictures:
    """Six pictures and a folder for them."""

    schema = Schema("pictures", "made up", "CC0-1.0", {"image": Modality("image")}, sensitive=False)

    def __init__(self, root: Path):
        self.root = root

    def studies(self):
        """Two of each split."""
        paths = sorted(self.root.glob("*.png"))
        return [Study(p.stem, p.stem, manifests.SPLITS[i % 3], partial(self.read, p)) for i, p in enumerate(paths)]

    @staticmethod
    def read(path):
        """A study of one picture."""
        return Example(path.stem, path.stem, {"image": [FileItem("image", path)]})


@pytest.fixture
def index(bucket, tmp_path, rng):
    """An index-only data set of pictures that lie in the bucket alone."""
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (16, 16)).astype(np.uint8)).save(root / f"{i}.png")
    build_dataset(Pictures(root), tmp_path / "index", Options(index_only=True), lambda done, total: None)
    local = list(opened(tmp_path / "index", source_dir=str(root)).evaluation("test", 8))
    upload(bucket, root, "pictures")
    shutil.rmtree(root)
    return opened(tmp_path / "index", source_dir="gs://bucket/pictures"), local


def test_single_files_are_read_from_where_they_lie(bucket, index):
    there, local = index
    bucket.fail("/download/", 503)
    for one, other in zip(there.evaluation("test", 8), local, strict=True):
        assert np.array_equal(one.items["image"].value, other.items["image"].value) and one.valid[:2].all()


@pytest.mark.parametrize("kind", ["gone", "garbled", "away"])
def test_a_single_file_that_cannot_be_read_is_an_invalid_example(bucket, index, kind):
    name = "pictures/2.png"
    if kind == "gone":
        del bucket.objects["bucket"][name]
    else:
        bucket.fail(f"/download/.*{name}", {"garbled": "garble", "away": 503}[kind], times=10**6)
    (batch,) = index[0].evaluation("test", 2)
    assert batch.valid.tolist() == [False, True]


def test_records_of_several_files_and_folders_are_borrowed_whole(bucket):
    for name in ("ecg/a.hea", "ecg/a.dat", "ecg/ab.dat", "series/1.dcm", "series/deep/2.dcm"):
        bucket.put("bucket", f"raw/{name}", name.encode())

    def borrowed(path):
        with remote.borrowed("gs://bucket/raw/", path) as file:
            folder = file if file.is_dir() else file.parent
            return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    assert borrowed("ecg/a.hea") == ["a.dat", "a.hea"] and borrowed("ecg/a") == ["a.dat", "a.hea"]
    assert borrowed("series") == ["1.dcm", "deep/2.dcm"] and borrowed("ecg/ab.dat") == ["ab.dat"]
    with pytest.raises(UserError, match="file ecg/x does not exist"):
        borrowed("ecg/x")
    with pytest.raises(UserError, match="leaves the folder"):
        borrowed("../secret")
