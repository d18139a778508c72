"""A build that was killed goes on where it stopped, and ends with the bytes of one that was not."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from killed_worker import Kill
from tiny_source import SCHEMA, TinySource, study, unreadable

from medjax.data import manifest as manifests
from medjax.data.building import plan as plans
from medjax.data.building.build import REJECTED, Options, build_dataset
from medjax.data.building.shards import RECEIPT
from medjax.data.manifest import SPLITS
from medjax.data.sources import Phantom, Study
from medjax.errors import UserError

PHANTOM = dict(patients=40, size=16)
PROGRAM = f"""
import signal, sys, time
from pathlib import Path
from medjax.data.building.build import Options, build_dataset
from medjax.data.sources import Phantom

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which who starts tests in the background switches off
    slow = lambda done, total: time.sleep(0.03)
    workers = int(sys.argv[2])
    build_dataset(Phantom(**{PHANTOM}), Path(sys.argv[1]), Options(workers=workers, records_per_shard=4), slow)
"""


def build(source, directory, report=lambda done, total: None, **options):
    return build_dataset(source, directory, Options(**options), report)


def content(directory: Path) -> dict[str, str]:
    return {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(directory.rglob("*"))
        if p.is_file()
    }


def receipts(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{RECEIPT}"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, str]:
    """Every file of a build that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole")
    build(Phantom(**PHANTOM), directory, records_per_shard=4)
    return content(directory)


@pytest.fixture
def start(tmp_path):
    """Starts a build in a process of its own, which does not outlive the test."""
    started = []

    def begin(directory: Path, workers: int) -> subprocess.Popen:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        command = [sys.executable, program, directory, str(workers)]
        started.append(subprocess.Popen(command, start_new_session=True, cwd=Path(__file__).parents[3]))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 1200
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(whole, start, tmp_path):
    directory = tmp_path / "data"
    process = start(directory, 2)
    wait_for(lambda: len(receipts(directory)) >= 3, process)
    process.kill()  # SIGKILL, of the main process alone
    process.wait()
    deadline = time.monotonic() + 120
    while alive(process.pid):  # its workers notice, and end
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (directory / manifests.FILE).exists()
    finished = {p: p.stat().st_mtime_ns for p in directory.glob("*.array_record")}
    there = {p.name.removesuffix(RECEIPT) for p in receipts(directory)}
    assert len(there) >= 3
    seen = []
    build(Phantom(**PHANTOM), directory, lambda done, total: seen.append(done), records_per_shard=4)
    assert content(directory) == whole
    for path, written in finished.items():
        if path.name.split(".")[0] in there:
            assert path.stat().st_mtime_ns == written, path  # not written again
    assert seen[0] >= 4 * 2 and seen[-1] == len(Phantom(**PHANTOM).studies())


def test_nothing_of_the_build_is_left_beside_the_data_set(whole):
    expected = {"manifest.json", REJECTED, "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    expected |= {f"patients-{split}.npy" for split in SPLITS}
    assert {name for name in whole if not name.endswith(".array_record")} == expected


def mixed() -> TinySource:
    """Every fifth study is damaged."""
    given = [study(f"{s}-{i}", s) if i % 5 else unreadable(f"{s}-{i}", s) for s in SPLITS for i in range(20)]
    return TinySource(given)


class StopError(Exception):
    """What a test stops a build with."""


def stop_after(count: int):
    def report(done, total):
        if done > count:
            raise StopError

    return report


def stopped(source, directory, count, **options):
    with pytest.raises(StopError):
        build(source, directory, stop_after(count), **options)


def test_a_build_that_was_interrupted_leaves_whole_shards_alone(tmp_path):
    stopped(mixed(), tmp_path, 10, records_per_shard=4, max_rejected_fraction=1)
    assert len(receipts(tmp_path)) == len(list(tmp_path.glob("*.array_record"))) == 2
    assert not [p for p in tmp_path.iterdir() if "unfinished" in p.name]


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (Phantom(**{**PHANTOM, "size": 32}), {}),
        (Phantom(**{**PHANTOM, "seed": 1}), {}),
        (Phantom(**PHANTOM), {"id_key": b"k" * 16}),
        (Phantom(**PHANTOM), {"vocab_size": 500}),
        (Phantom(**PHANTOM), {"records_per_shard": 8}),
    ],
)
def test_another_plan_is_refused(tmp_path, source, options):
    stopped(Phantom(**PHANTOM), tmp_path, 10, records_per_shard=4)
    before = content(tmp_path)
    with pytest.raises(UserError, match="part of a build of another source or with other options"):
        build(source, tmp_path, **{"records_per_shard": 4, **options})
    assert content(tmp_path) == before


def test_a_changed_table_is_another_plan(tmp_path):
    from medjax.data.sources import Columns, Table

    path = tmp_path / "table.csv"
    source = Table(path, Columns(text=("report",)), "mine", "CC0-1.0", sensitive=False)
    path.write_text("report\n" + "".join(f"study {i}\n" for i in range(40)))
    stopped(source, tmp_path / "data", 5, records_per_shard=4)
    path.write_text(path.read_text().replace("study 7", "study x"))
    with pytest.raises(UserError, match="another source"):
        build(source, tmp_path / "data", records_per_shard=4)


def test_a_damaged_plan_is_named(tmp_path):
    stopped(Phantom(**PHANTOM), tmp_path, 10, records_per_shard=4)
    (tmp_path / plans.FILE).write_text("{")
    with pytest.raises(UserError, match=r"build\.plan\.json is damaged"):
        build(Phantom(**PHANTOM), tmp_path, records_per_shard=4)


def test_a_shard_that_was_lost_or_cut_is_written_again(tmp_path):
    options = dict(records_per_shard=4, max_rejected_fraction=0.3)
    build(mixed(), tmp_path / "a", **options)
    stopped(mixed(), tmp_path / "b", 30, **options)
    first, second, *_ = sorted((tmp_path / "b").glob("train-*.array_record"))
    first.unlink()
    with second.open("r+b") as f:
        f.truncate(100)
    build(mixed(), tmp_path / "b", **options)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_the_list_of_rejected_studies_is_complete_after_a_restart(tmp_path):
    build(mixed(), tmp_path / "a", max_rejected_fraction=0.3, records_per_shard=4)
    stopped(mixed(), tmp_path / "b", 25, max_rejected_fraction=0.3, records_per_shard=4)
    build(mixed(), tmp_path / "b", max_rejected_fraction=0.3, records_per_shard=4)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len((tmp_path / "b" / REJECTED).read_text().splitlines()) == 12


def test_a_build_stopped_by_its_limit_goes_on_with_a_higher_one(tmp_path):
    build(mixed(), tmp_path / "a", max_rejected_fraction=0.3, records_per_shard=4)
    with pytest.raises(UserError, match="4 of 60 studies are unreadable"):
        build(mixed(), tmp_path / "b", max_rejected_fraction=0.05, records_per_shard=4)
    assert len((tmp_path / "b" / REJECTED).read_text().splitlines()) == 4
    with pytest.raises(UserError, match="3 of 60 studies are unreadable"):
        build(mixed(), tmp_path / "b", max_rejected_fraction=0.02, records_per_shard=4)
    assert receipts(tmp_path / "b")
    build(mixed(), tmp_path / "b", max_rejected_fraction=0.3, records_per_shard=4)
    differing = {k for k, v in content(tmp_path / "a").items() if content(tmp_path / "b")[k] != v}
    assert not differing


def test_the_processes_of_a_build_do_without_jax():
    """It would cost each of them seconds and hundreds of megabytes."""
    code = (
        "import sys, medjax.data.building.build, medjax.data.sources\n"
        "print({'jax', 'grain', 'flax'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


def test_two_builds_in_one_folder_at_once_are_refused(tmp_path):
    def build_again(done, total):
        with pytest.raises(UserError, match="another process builds in"):
            build(TinySource([study(s, s) for s in SPLITS]), tmp_path)

    build(TinySource([study(s, s) for s in SPLITS]), tmp_path, build_again)


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(tmp_path):
    given = [Study(s, f"patient of {s}", s, Kill(s)) for s in SPLITS]
    with pytest.raises(UserError, match=r"a worker process died.*goes on where it stopped.*--workers"):
        build(TinySource(given, replace(SCHEMA, sensitive=False)), tmp_path, workers=2)
    assert not (tmp_path / manifests.FILE).exists()


def test_what_a_build_left_that_was_killed_at_its_very_end_is_removed(tmp_path):
    build(mixed(), tmp_path, max_rejected_fraction=0.3)
    before = content(tmp_path)
    (tmp_path / f"train-00000{RECEIPT}").write_text("a report")
    with pytest.raises(UserError, match="there is a data set at"):
        build(mixed(), tmp_path)
    assert content(tmp_path) == before


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(plans.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match=r"about [\d.]+ MiB are still to be written and .* has 1000 bytes left"):
        build(Phantom(**PHANTOM), tmp_path)
    assert not list(tmp_path.glob("*.array_record"))


def test_an_interrupt_reaches_no_half_shard(start, tmp_path):
    process = start(tmp_path / "data", 1)
    wait_for(lambda: receipts(tmp_path / "data"), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) != 0
    assert not [p for p in (tmp_path / "data").iterdir() if "unfinished" in p.name]
