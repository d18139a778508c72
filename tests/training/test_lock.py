"""A workdir has one run: who lives is not disturbed, who is gone is followed."""

import json
import logging
import os
import subprocess
import threading
import time
from dataclasses import asdict, replace

import pytest

from medjax.errors import StorageError, UserError
from medjax.training.lock import FILE, Owner, RunLock, _began


@pytest.fixture(autouse=True)
def _messages_are_seen(monkeypatch):
    monkeypatch.setattr(logging.getLogger("medjax"), "propagate", True)  # a run turns that off


def _leave_lock(workdir, **changes) -> Owner:
    owner = replace(Owner.here(), token="another", **changes)
    workdir.mkdir(exist_ok=True)
    (workdir / FILE).write_text(json.dumps(asdict(owner)))
    return owner


def test_a_second_run_is_refused_while_the_first_is_there(tmp_path):
    workdir = tmp_path / "run"
    with RunLock(workdir).held():
        with (
            pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .* another workdir"),
            RunLock(workdir).held(),
        ):
            pass
        assert (workdir / FILE).exists()
    assert not (workdir / FILE).exists()
    with RunLock(workdir).held():
        pass


def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path, caplog):
    gone = subprocess.Popen(["sleep", "60"])
    owner = _leave_lock(tmp_path, pid=gone.pid, began=_began(gone.pid))
    assert owner.lives()
    gone.kill()
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)  # its number is still taken
    with caplog.at_level("WARNING", "medjax"), RunLock(tmp_path).held():
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert f"locked by process {gone.pid}" in caplog.text
    gone.wait()


def test_a_process_of_the_same_number_is_another_one(tmp_path):
    _leave_lock(tmp_path, began="1")
    with RunLock(tmp_path).held():
        pass


def test_a_half_written_lock_is_that_of_a_dead_run(tmp_path):
    (tmp_path / FILE).write_text('{"token": "ab')
    with RunLock(tmp_path, beat=0.01).held():
        pass


def test_of_another_machine_heartbeats_tell(tmp_path):
    owner = _leave_lock(tmp_path, machine="another")
    over = threading.Event()

    def beat() -> None:
        beats = 0
        while not over.wait(0.05):
            beats += 1
            partial = tmp_path / "partial"
            partial.write_text(json.dumps({**asdict(owner), "beats": beats}))
            partial.replace(tmp_path / FILE)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(UserError, match="in use by"), RunLock(tmp_path, beat=0.4).held():
        pass
    over.set()
    thread.join()
    with RunLock(tmp_path, beat=0.1).held():
        pass


def test_a_run_whose_workdir_was_taken_over_stops_writing(tmp_path):
    with RunLock(tmp_path, beat=0.02).held() as lock:
        lock.check()
        _leave_lock(tmp_path)
        end = time.monotonic() + 30
        with pytest.raises(StorageError, match="taken over by another run"):
            while time.monotonic() < end:
                lock.check()
                time.sleep(0.01)
    assert json.loads((tmp_path / FILE).read_text())["token"] == "another"


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"), RunLock(tmp_path / "file" / "run").held():
        pass
