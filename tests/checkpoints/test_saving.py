"""Saves in the background: training goes on, a kill or a full disk costs at most that save, and the next call tells."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.checkpoints import CheckpointStore, folders, integrity
from medjax.errors import StorageError, UserError

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "support" / "saving_worker.py"


def state(step: int, rows: int = 64) -> dict:
    rng = np.random.default_rng(step)
    return {"kernel": jnp.asarray(rng.normal(size=(rows, 32)), jnp.float32), "step": jnp.int32(step)}


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def restored(store, step: int):
    like = abstract(state(step))
    return store.restore(step, like, like)[0]


def test_what_is_saved_is_what_was_there_though_the_next_step_takes_its_buffers(tmp_path):
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    store, held, now = CheckpointStore(tmp_path, keep=9, background=True), {}, state(0)
    for step in range(4):
        held[step] = jax.tree.map(lambda x: np.array(x, copy=True), now)
        store.save(step, now, now, {"step": step})
        for _ in range(3):
            now = advance(now)
    store.close()
    for step, want in held.items():
        jax.tree.map(np.testing.assert_array_equal, restored(store, step), want)


def test_the_caller_does_not_wait_for_the_bytes_and_wait_does(tmp_path, monkeypatch):
    sealing, go = threading.Event(), threading.Event()
    seal = integrity.seal
    monkeypatch.setattr(integrity, "seal", lambda folder: (sealing.set(), go.wait(60), seal(folder)))
    store = CheckpointStore(tmp_path, background=True)
    store.save(1, state(1), state(1), {})
    assert sealing.wait(60) and not (tmp_path / "1" / integrity.FILE).exists()
    assert CheckpointStore(tmp_path, read_only=True).latest_valid_step() is None
    go.set()
    store.wait()
    assert store.latest_valid_step() == 1
    store.close()


def test_what_was_given_as_meta_may_change_at_once(tmp_path):
    store, meta = CheckpointStore(tmp_path, background=True), {"counts": {"a": 1}}
    store.save(1, state(1), state(1), meta)
    meta["counts"]["a"] = 2
    store.close()
    assert store.meta(1) == {"counts": {"a": 1}}


def test_older_ones_go_only_when_the_newer_is_sealed(tmp_path, monkeypatch):
    there, seal = {}, integrity.seal

    def noting(folder):
        there[folder.name] = store.steps()
        seal(folder)

    monkeypatch.setattr(integrity, "seal", noting)
    store = CheckpointStore(tmp_path, keep=1, background=True)
    for step in (1, 2, 3):
        store.save(step, state(step), state(step), {})
    store.close()
    assert there == {"1": [1], "2": [1, 2], "3": [2, 3]}
    assert store.steps() == [3]


def test_a_seal_that_fails_is_told_by_the_next_call_and_costs_no_earlier_step(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=1, background=True)
    store.save(1, state(1), state(1), {})
    store.wait()

    def full(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(integrity, "seal", full)
        store.save(2, state(2), state(2), {})
        with pytest.raises(StorageError, match=r"checkpoint .*2 could not be saved: .*No space left"):
            store.save(3, state(3), state(3), {})
    assert store.latest_valid_step() == 1
    assert [p.name[:2] for p in (tmp_path / "damaged").iterdir()] == ["2-"]
    # There is room again.
    store.save(2, state(2), state(2), {})
    store.close()
    jax.tree.map(np.testing.assert_array_equal, restored(store, 2), state(2))


@pytest.mark.parametrize(
    "keep, every, want", [(1, 0, [6]), (2, 3, [3, 5, 6]), (1, 2, [2, 4, 6]), (9, 0, [*range(1, 7)])]
)
def test_the_latest_and_the_multiples_stay(keep, every, want):
    kept: set[int] = set()
    for step in range(1, 7):
        kept = folders.kept(kept | {step}, step, keep, every)
    assert sorted(kept) == want


def test_the_newest_sealed_stays_though_the_run_went_back_behind_others():
    assert folders.kept({100, 150, 200}, 120, 1, 0) >= {120}


def test_multiples_stay_on_disk(tmp_path):
    store = CheckpointStore(tmp_path, keep=1, keep_every=2)
    for step in range(1, 6):
        store.save(step, state(step), state(step), {})
    assert store.steps() == [2, 4, 5]
    store.close()


def test_to_keep_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.train\.keep=0"):
        CheckpointStore(tmp_path, keep=0)


def test_what_killed_programs_left_is_deleted_at_the_next_start(tmp_path):
    store = CheckpointStore(tmp_path, keep=3)
    for step in (1, 2):
        store.save(step, state(step), state(step), {})
    (tmp_path / "3.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (tmp_path / "1.deleting").touch()
    (tmp_path / "1" / "meta" / "metadata").unlink()  # a deletion that had begun
    assert CheckpointStore(tmp_path, read_only=True).steps() == [2]
    assert CheckpointStore(tmp_path).latest_valid_step() == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2"]


def start(*args: object, **environment: str) -> subprocess.Popen:
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": "16", "PYTHONPATH": str(ROOT), **environment}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, str(WORKER), *map(str, args)]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_full_disk_is_told_and_earlier_steps_stay_sound(tmp_path):
    """No file may grow beyond a limit, which the third save would."""
    code, out, err = finish(start("full", tmp_path))
    assert code == 0, err
    told = json.loads(out)
    assert told["error"] == "StorageError" and "3 could not be saved" in told["message"]
    store = CheckpointStore(tmp_path)
    assert store.latest_valid_step() == 2
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "damaged") == ["1", "2"]


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_kill_at_any_moment_of_a_save_leaves_a_sound_newest_step(tmp_path):
    """Each process goes on from the newest sound step, saves the next, and is killed in the save after that."""
    newest = 0
    for moment in ("writing", "written", "sealing", "deleting"):
        code, _, err = finish(start("killed", tmp_path, newest, moment))
        assert code == -signal.SIGKILL, err
        newest += 2 if moment == "deleting" else 1  # which begins when the new one is sealed
        reader = CheckpointStore(tmp_path, read_only=True)
        assert reader.latest_valid_step() == newest, moment
        want = np.random.default_rng(newest).normal(size=(1024, 512)).astype(np.float32)
        np.testing.assert_array_equal(reader.restore_params(newest)[0]["kernel"], want)
    store = CheckpointStore(tmp_path)
    assert store.latest_valid_step() == newest
    # What was half deleted is gone, and what was never sealed is kept aside.
    assert store.steps() == [newest]
    assert {p.name.split("-")[0] for p in (tmp_path / "damaged").iterdir()} == {"3", "4"}
    assert {p.name for p in tmp_path.iterdir()} == {str(newest), "damaged"}


@pytest.mark.slow
@pytest.mark.end_to_end
def test_two_processes_save_agree_and_restore_and_so_does_one(tmp_path):
    import portpicker

    port = portpicker.pick_unused_port()
    both = [start("two", tmp_path, index, port) for index in range(2)]
    ended = [finish(p) for p in both]
    assert [code for code, _, _ in ended] == [0, 0], "\n".join(err for _, _, err in ended)
    store = CheckpointStore(tmp_path / "run", keep=3)
    assert store.latest_valid_step() == 4
    rows = jax.device_put(np.arange(32, dtype=np.float32).reshape(8, 4) * 4, jax.devices()[0])
    got, _, meta = store.restore(4, abstract({"kernel": rows}), abstract({"kernel": rows}))
    np.testing.assert_array_equal(got["kernel"], rows)
    assert meta == {"step": 4}
