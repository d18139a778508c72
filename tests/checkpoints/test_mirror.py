"""A run in an object store: checkpoints and small files lie there, and a machine that never saw it goes on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.checkpoints import CheckpointStore, mirror
from medjax.errors import StorageError, UserError
from medjax.training.lock import RunLock

RUN = "gs://bucket/runs/one"


@pytest.fixture(autouse=True)
def machine(gcs, tmp_path, monkeypatch):
    """Makes this process one of a machine with an empty cache."""

    def arrive(name: str) -> None:
        monkeypatch.setenv("MEDJAX_CACHE_DIR", str(tmp_path / name))

    monkeypatch.setenv("MEDJAX_STORAGE_ATTEMPTS", "3")
    arrive("first")
    return arrive


def state(seed: int) -> tuple[dict, dict]:
    return {"w": jax.random.normal(jax.random.key(seed), (64, 8))}, {"step": jnp.int32(seed)}


def test_checkpoints_are_saved_verified_and_restored_there(gcs, machine):
    with mirror.spooled(RUN) as folder:
        store = CheckpointStore(folder / "checkpoints", keep=2)
        for step in (1, 2, 3):
            if step == 2:
                gcs.fail("POST /upload.*runs", 503)
            store.save(step, *state(step), {"examples_seen": step})
        store.close()
        assert not (folder / "checkpoints").exists()
    names = gcs.names("bucket", "runs/one/checkpoints/")
    assert {n.split("/")[3] for n in names} == {"2", "3"}
    machine("second")
    target = jax.tree.map(jnp.zeros_like, state(0))
    with mirror.spooled(RUN) as folder:
        store = CheckpointStore(folder / "checkpoints")
        assert store.latest_valid_step() == 3
        params, rest, meta = store.restore(3, *target)
        assert np.array_equal(params["w"], state(3)[0]["w"]) and rest["step"] == 3 and meta["examples_seen"] == 3
        store.close()


def test_a_damaged_checkpoint_is_passed_over_and_kept_aside(gcs):
    with mirror.spooled(RUN) as folder:
        store = CheckpointStore(folder / "checkpoints", keep=3)
        for step in (1, 2, 3):
            store.save(step, *state(step), {})
        store.close()
        largest = max(gcs.names("bucket", "runs/one/checkpoints/3/"), key=lambda n: len(gcs.objects["bucket"][n][0]))
        data = gcs.objects["bucket"][largest][0]
        gcs.put("bucket", largest, data[:-1] + bytes([data[-1] ^ 1]))  # a flipped bit
        for name in gcs.names("bucket", "runs/one/checkpoints/2/"):
            if name.endswith("checksums.json"):
                del gcs.objects["bucket"][name]  # as if the save had been cut short
        store = CheckpointStore(folder / "checkpoints")
        assert store.latest_valid_step() == 1 and store.steps() == [1]
        store.close()
    aside = gcs.names("bucket", "runs/one/checkpoints/damaged/")
    assert any(n.endswith(largest.split("/3/")[1]) for n in aside)


def test_small_files_follow_a_run_to_another_machine(gcs, machine):
    with mirror.spooled(RUN) as folder:
        (folder / "config.json").write_text("{}")
        (folder / "stages" / "a").mkdir(parents=True)
        with (folder / "metrics.jsonl").open("a") as f:
            f.write("1\n")
            f.flush()
            mirror.flush(folder / "stages" / "a")
            assert gcs.objects["bucket"]["runs/one/metrics.jsonl"][0] == b"1\n"
            f.write("2\n")
        (folder / "stages" / "a" / "metrics.jsonl").write_text("3\n")
        (folder / "tensorboard").mkdir()
        (folder / "tensorboard" / "events").write_text("x")
        uploads = len([r for r in gcs.requests if "/upload" in r])
        mirror.flush(folder)
        mirror.flush(folder)  # nothing has changed
        assert len([r for r in gcs.requests if "/upload" in r]) == uploads + 3
    machine("second")
    with mirror.spooled(RUN, process=1) as folder:
        assert (folder / "metrics.jsonl").read_text() == "1\n2\n" and not (folder / "tensorboard").exists()
        assert (folder / "stages" / "a" / "metrics.jsonl").read_text() == "3\n"
    assert mirror.readable(RUN) != folder and (mirror.readable(RUN) / "config.json").read_text() == "{}"


def test_a_storage_that_is_away_is_said_at_the_end_and_not_in_the_way_of_an_error(gcs):
    with pytest.raises(StorageError, match="writing gs://bucket/runs/one/a failed"), mirror.spooled(RUN) as folder:
        gcs.fail("/upload", 403, times=10**6)
        (folder / "a").write_text("x")
        mirror.flush(folder)  # tried again at the end
    with pytest.raises(KeyError), mirror.spooled(RUN) as folder:
        (folder / "b").write_text("x")
        raise KeyError


def test_a_second_run_is_refused_wherever_it_is_started(gcs, machine):
    with mirror.spooled(RUN) as folder, RunLock(folder).held():
        assert json.loads(gcs.objects["bucket"]["runs/one/run.lock"][0])["token"]
        machine("second")
        with (
            mirror.spooled(RUN) as other,
            pytest.raises(UserError, match="gs://bucket/runs/one is in use by process"),
            RunLock(other).held(),
        ):
            pass
    assert "runs/one/run.lock" not in gcs.objects["bucket"]


def test_a_folder_of_this_machine_is_itself(tmp_path):
    with mirror.spooled(tmp_path) as folder:
        assert folder == mirror.readable(str(tmp_path)) == mirror.place(tmp_path) == tmp_path
