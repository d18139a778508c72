"""Programs of their own for `test_saving`: each saves in the background until something happens to it."""

import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
from etils import epath

from medjax.checkpoints import CheckpointStore, integrity
from medjax.errors import StorageError


def full(directory: Path) -> None:
    """Saves until a file is larger than this process may write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails as on a full disk
    store, message = CheckpointStore(directory, keep=1, keep_every=1, background=True), None
    for step in range(1, 5):
        rows = 8 if step < 3 else 4096
        values = {"kernel": jax.numpy.asarray(np.random.default_rng(step).normal(size=(rows, 64)), np.float32)}
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
        try:
            store.save(step, values, values, {"step": step})
        except StorageError as error:
            message = str(error)
            break
    print(json.dumps({"error": "StorageError" if message else None, "message": message}))


def killed(directory: Path, newest: str, moment: str) -> None:
    """Goes on from the newest sound step, saves the next one, and is killed at a moment of the save after it."""
    store = CheckpointStore(directory, keep=1, background=True)
    found = store.latest_valid_step() or 0
    assert found == int(newest), f"{found} is the newest, and not {newest}"
    for step in (found + 1, found + 2):
        if step == found + 2:
            store.wait()
            MOMENTS[moment](directory / str(step))
        values = np.random.default_rng(step).normal(size=(1024, 512)).astype(np.float32)
        tree = {"kernel": jax.numpy.asarray(values)}
        store.save(step, tree, tree, {"step": step})
    store.close()
    raise AssertionError("still alive")


def _die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _while_writing(folder: Path) -> None:
    """When the first array is on its way to the disk."""

    def watch() -> None:
        while not any(p.is_file() for p in folder.parent.glob(f"{folder.name}.orbax-checkpoint-tmp/**/d/*")):
            time.sleep(0.001)
        _die()

    threading.Thread(target=watch, daemon=True).start()


def _when_written(_: Path) -> None:
    integrity.seal = _die


def _while_sealing(_: Path) -> None:
    integrity._sync = _die  # the checksums are written under another name


def _while_deleting(_: Path) -> None:
    delete = type(epath.Path("/")).rmtree

    def half(path: epath.Path, **options) -> None:
        delete(path / "params", **options)
        _die()

    type(epath.Path("/")).rmtree = half


MOMENTS = {
    "writing": _while_writing,
    "written": _when_written,
    "sealing": _while_sealing,
    "deleting": _while_deleting,
}


def two(directory: Path, index: str, port: str) -> None:
    """One of two processes with two devices each; both stores save at once."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(index))
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))

    def values(step: int) -> dict[str, jax.Array]:
        whole = np.arange(32, dtype=np.float32).reshape(8, 4) * step
        return {"kernel": jax.make_array_from_callback(whole.shape, rows, lambda at: whole[at])}

    run, best = (CheckpointStore(directory / name, keep=3, background=True) for name in ("run", "best"))
    assert run.latest_valid_step() is None
    for step in range(1, 6):
        tree = values(step)
        best.save(step, tree, tree, {"step": step})
        run.save(step, tree, tree, {"step": step})
    run.wait(), best.wait()
    assert run.steps() == best.steps() == [3, 4, 5]
    if index == "0":
        victim = max((directory / "run" / "5").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
        victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    assert run.latest_valid_step() == 4
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), values(0))
    params, _, meta = run.restore(4, like, like)
    for shard in params["kernel"].addressable_shards:
        np.testing.assert_array_equal(shard.data, np.asarray(values_of(4)[shard.index]))
    alone, _ = run.restore_params(4)
    np.testing.assert_array_equal(alone["kernel"], values_of(4))
    assert meta == {"step": 4}
    for store in (run, best):
        store.close()
    jax.distributed.shutdown()


def values_of(step: int) -> np.ndarray:
    """What the kernel of a step is as a whole."""
    return np.arange(32, dtype=np.float32).reshape(8, 4) * step


if __name__ == "__main__":
    {"full": full, "killed": killed, "two": two}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
