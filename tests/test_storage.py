"""Attempts, time-outs and errors of storage, against a server that fails as object stores do."""

import hashlib
import itertools

import pytest

from medjax import storage
from medjax.errors import StorageError, UserError
from medjax.retries import Retries, with_retries

QUICK = Retries(attempts=3, timeout=1.0, wait=0.001)


class Flaky:
    """Raises these errors one after the other, then answers."""

    def __init__(self, *errors: Exception):
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_a_call_is_repeated_until_it_answers():
    call = Flaky(OSError("reset"), ConnectionError("gone"))
    assert with_retries(call, "reading x", QUICK) == "answer" and call.calls == 3


def test_after_the_last_attempt_the_error_names_path_and_cause():
    call = Flaky(*[OSError("no route to host")] * 9)
    with pytest.raises(StorageError, match="reading gs://b/x failed 3 times, the last time: no route to host"):
        with_retries(call, "reading gs://b/x", QUICK)
    assert call.calls == 3


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (FileNotFoundError("x"), FileNotFoundError),
        (FileExistsError("x"), FileExistsError),
        (UserError("x"), UserError),
        (PermissionError("denied"), StorageError),
        (OSError(28, "No space left on device"), StorageError),
        (OSError("Forbidden: https://storage"), StorageError),
    ],
    ids=["absent", "exists", "user", "denied", "full", "forbidden"],
)
def test_what_no_repetition_mends_is_raised_at_once(error, raised):
    call = Flaky(error)
    with pytest.raises(raised):
        with_retries(call, "reading x", QUICK)
    assert call.calls == 1


def test_a_call_that_never_returns_is_given_up(gcs):
    hangs = itertools.count()

    def call():
        if next(hangs) == 0:
            gcs.over.wait(30)
        return "answer"

    assert with_retries(call, "reading x", Retries(2, 0.05, 0.001)) == "answer"
    with pytest.raises(StorageError, match=r"no answer within 0\.05 s"):
        with_retries(lambda: gcs.over.wait(30), "reading x", Retries(2, 0.05, 0.001))


def test_bounds_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MEDJAX_STORAGE_ATTEMPTS", "7")
    monkeypatch.setenv("MEDJAX_STORAGE_TIMEOUT", "9.5")
    assert (Retries.default().attempts, Retries.default().timeout) == (7, 9.5)
    monkeypatch.setenv("MEDJAX_STORAGE_TIMEOUT", "soon")
    with pytest.raises(UserError, match="MEDJAX_STORAGE_TIMEOUT"):
        Retries.default()


def test_paths_here_need_no_package(tmp_path):
    assert storage.as_path(str(tmp_path)) == tmp_path and not storage.is_remote(tmp_path)
    assert storage.absolute("gs://bucket/x") == "gs://bucket/x"


def test_an_unknown_scheme_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(UserError, match=r"unknown scheme ftp://; valid: gs://, s3://"):
        storage.as_path("ftp://host/x")
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    storage._set_up.cache_clear()
    with pytest.raises(UserError, match=r"needs the package gcsfs; pip install 'medjax\[gcs\]'"):
        storage.as_path("gs://bucket/x")
    with pytest.raises(UserError, match="works on local folders, not on gs://bucket/x"):
        storage.local_path("gs://bucket/x", "forget")


def test_a_file_is_written_read_and_made_only_once(gcs):
    path = "gs://bucket/folder/a.txt"
    storage.write_bytes(path, b"one")
    storage.write_bytes(path, b"two")
    assert storage.read_bytes(path) == b"two" and storage.size(path) == 3
    with pytest.raises(FileExistsError):
        storage.write_bytes(path, b"three", new=True)
    storage.write_bytes(path, b"two", new=True)  # as after an attempt whose answer was lost
    assert storage.sizes("gs://bucket/folder") == {"a.txt": 3} and storage.sizes("gs://bucket/none") == {}
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("gs://bucket/none")


@pytest.mark.parametrize("kind", [503, 429, "truncate", "stall"])
def test_a_passing_fault_costs_only_time(gcs, kind):
    gcs.put("bucket", "a", b"x" * 5000)
    gcs.fail("GET .*/o/a", kind, times=2)
    assert storage.read_bytes("gs://bucket/a", Retries(4, 0.4, 0.001)) == b"x" * 5000
    assert sum(f.times for f in gcs.faults) == 0


def test_a_lasting_fault_ends_in_one_line(gcs):
    gcs.put("bucket", "a", b"x")
    gcs.fail("GET .*/o/a", 503, times=10**6)
    with pytest.raises(StorageError, match=r"reading gs://bucket/a failed 2 times, the last time: .*503"):
        storage.read_bytes("gs://bucket/a", Retries(2, 5, 0.001))
    gcs.fail("POST .*/o", 403, times=10**6)
    with pytest.raises(StorageError, match=r"writing gs://bucket/b failed: Forbidden"):
        storage.write_bytes("gs://bucket/b", b"x", retries=Retries(2, 5, 0.001))


def test_a_stopped_copy_goes_on_where_it_stopped(gcs, tmp_path, monkeypatch, rng):
    monkeypatch.setattr(storage, "PART", 1000)
    data = rng.bytes(4500)
    gcs.put("bucket", "a", data)
    gcs.fail(r"/download/.*/o/a", "stall", times=0)
    (tmp_path / "a.part").write_bytes(data[:3000])
    storage.fetch("gs://bucket/a", tmp_path / "a", hashlib.sha256(data).hexdigest())
    assert (tmp_path / "a").read_bytes() == data and not (tmp_path / "a.part").exists()
    assert sum("/download/" in r for r in gcs.requests) == 2


def test_a_damaged_copy_is_made_again_and_then_refused(gcs, tmp_path, rng):
    data = rng.bytes(4500)
    gcs.put("bucket", "a", data)
    digest = hashlib.sha256(data).hexdigest()
    gcs.fail("/download/", "garble")
    storage.fetch("gs://bucket/a", tmp_path / "a", digest)
    assert (tmp_path / "a").read_bytes() == data
    gcs.fail("/download/", "garble", times=2)
    with pytest.raises(StorageError, match="gs://bucket/a differs from its checksum, twice"):
        storage.fetch("gs://bucket/a", tmp_path / "b", digest)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_large_file_is_written_whole(gcs, rng):
    data = rng.bytes(51 * 2**20)  # beyond what one request takes
    gcs.fail("POST /upload", 503, times=2)
    storage.write_bytes("gs://bucket/a", data)
    assert gcs.objects["bucket"]["a"][0] == data
