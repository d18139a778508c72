"""A disk that is full: said before hours are spent, and survived when it happens later."""

import os
import resource
import subprocess
from types import SimpleNamespace

import pytest
from runs import STEPS, assert_same, last_logged, output, until

from medjax.errors import EXIT_BAD_INPUT, EXIT_STORAGE, StorageError, UserError
from medjax.training import room


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many MiB; the test is skipped where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: int):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no file system may be mounted here")
        return folder / "run"

    yield make
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_too_little_room_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 2**20))
    room.check_room(tmp_path, 70 * 2**20, "the run")
    with pytest.raises(StorageError, match=r"checkpoint of step 4 needs 126 MiB in .*, and 100 MiB are free"):
        room.check_room(tmp_path, 100 * 2**20, "the checkpoint of step 4")
    with pytest.raises(UserError):
        room.check_room(tmp_path, 100 * 2**20, "the run", UserError)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_disk_that_fills_up_costs_no_checkpoint(server, whole_run, small_disk, tmp_path):
    workdir = small_disk(48)
    numbers = server.start(workdir)
    until(lambda: last_logged(workdir) >= 4, *numbers)
    filler = workdir.parent / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(workdir.parent)
        file.write(bytes(max(free.f_bavail * free.f_frsize - 2**20, 0)))
    assert server.wait(*numbers) == [EXIT_STORAGE], output(workdir)
    assert server.wait(*server.start(workdir)) == [EXIT_BAD_INPUT]
    assert "MiB are free; make room" in output(workdir)
    filler.unlink()
    server.train(workdir)
    assert_same(workdir, whole_run, STEPS)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_save_that_cannot_be_written_ends_the_run_with_the_last_one_whole(server, whole_run, tmp_path):
    """No file may grow beyond 40 KiB, its log neither: what a quota or a broken disk does, allowed to any user."""
    workdir = tmp_path / "run"
    numbers = server.start(workdir)
    until(lambda: last_logged(workdir) >= 4, *numbers)
    with workdir.with_name("run-0.out").open("ab") as log:
        log.write(bytes(40 * 2**10))
    resource.prlimit(numbers[0], resource.RLIMIT_FSIZE, (40 * 2**10, 40 * 2**10))
    assert server.wait(*numbers) == [EXIT_STORAGE], output(workdir)
    server.train(workdir)
    assert_same(workdir, whole_run, STEPS)
