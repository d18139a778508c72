"""Whether the workdir can be written by every process, and how fast examples are read."""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from medjax.data import Dataset
from medjax.storage import as_path, is_remote
from medjax.training.doctor.findings import Finding, Status
from medjax.training.experiment import Experiment

_BYTES = 2**26
_READ_SECONDS = 8.0


def workdir(folder: str) -> Iterator[Finding]:
    """Writes, syncs, renames, reads and deletes in the workdir; and whether all processes see the same one."""
    root = as_path(folder)
    made = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    place = root / f"doctor-{uuid.uuid4().hex[:8]}"
    try:
        yield _speed(place, folder)
    finally:
        _remove(place)
    if not is_remote(folder):
        free = shutil.disk_usage(root).free / 2**30
        advice = "a checkpoint of a ViT-B and a BERT-base with AdamW takes 2.4 GB, and three of them may lie there"
        yield Finding("workdir space", Status.OK if free > 10 else Status.WARN, f"{free:.0f} GiB free", advice)
    yield from _shared(root)
    if made and jax.process_index() == 0 and not any(root.iterdir()):
        root.rmdir()


def _speed(place: Any, folder: str) -> Finding:
    data, name = os.urandom(2**20) * (_BYTES // 2**20), "written"
    start = time.perf_counter()
    place.mkdir()
    with (place / name).open("wb") as file:
        file.write(data)
        if not is_remote(folder):
            file.flush()
            os.fsync(file.fileno())
    if not is_remote(folder):
        moved = place.with_name(f"{place.name}-moved")
        place.rename(moved)  # how a checkpoint becomes whole
        moved.rename(place)
    rate = _BYTES / (time.perf_counter() - start) / 2**20
    if (place / name).read_bytes() != data:
        return Finding(
            "workdir", Status.FAIL, f"{folder} gives back other bytes than it got", "use another file system"
        )
    skew = 0.0 if is_remote(folder) else abs((place / name).stat().st_mtime - time.time())
    status = Status.WARN if rate < 50 or skew > 60 else Status.OK
    late = f", its clock is {skew:.0f} s off" if skew > 60 else ""
    advice = "saving will hold up training; a parallel file system or a bucket is faster, and save less often"
    return Finding("workdir", status, f"{folder} takes {rate:.0f} MiB/s, with fsync and rename{late}", advice)


def _remove(place: Any) -> None:
    for path in (place, place.with_name(f"{place.name}-moved")):
        if path.exists():
            path.rmtree() if hasattr(path, "rmtree") else shutil.rmtree(path)


def _shared(root: Any) -> Iterator[Finding]:
    """A file that the first process writes must be there for all."""
    if jax.process_count() == 1:
        return
    note = root / "doctor-note"
    if jax.process_index() == 0:
        note.write_text("seen")
    multihost_utils.sync_global_devices("medjax-doctor-note")
    deadline = time.monotonic() + 5
    while not (seen := note.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)  # networks cache what a folder holds
    multihost_utils.sync_global_devices("medjax-doctor-seen")
    if jax.process_index() == 0:
        note.unlink()
    advice = "the workdir must be one folder for all processes: a network file system or a bucket"
    yield Finding("workdir shared", Status.OK if seen else Status.FAIL, f"seen here: {seen}", advice)


def reading(experiment: Experiment) -> Iterator[Finding]:
    """Examples a second that this process reads and preprocesses, as training would."""
    dataset = Dataset.open(experiment.data)
    place = jax.process_index(), jax.process_count()
    size = experiment.data.batch_size
    batches = dataset.train(experiment.seed, 0, size, *place, dataset.ledger())
    try:
        next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < _READ_SECONDS:
            next(batches)
            count += 1
        rate = count * size / (time.perf_counter() - start)
    finally:
        batches.close()
    advice = "compare with the examples/s of training; config.data.threads, workers and cache make it faster"
    yield Finding("reading data", Status.OK, f"{rate:.0f} examples/s of all processes together", advice)
