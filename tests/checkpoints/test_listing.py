"""The list of checkpoints tells sound ones from damaged ones, and changes nothing."""

import shutil
import subprocess
import sys

import jax.numpy as jnp
import pytest
from etils import epath

from medjax.checkpoints import CheckpointStore
from medjax.checkpoints.listing import listed

NAMES = ("stages/first/checkpoints", "checkpoints", "best", "untrained")


@pytest.fixture
def run(tmp_path):
    """What the list looks at of a run: a stage, and two steps of the last."""
    for folder, steps in (("stages/first/checkpoints", (3,)), ("checkpoints", (10, 20)), ("best", (10,))):
        store = CheckpointStore(tmp_path / folder, keep=5)
        for step in steps:
            weights = {"w": jnp.arange(300.0) * step}
            store.save(step, weights, weights, {"examples_seen": 8 * step})
        store.close()
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def rows(run, verify: bool):
    return {(r.folder, r.step): r for r in listed(epath.Path(run), NAMES, verify)}


def flip_a_bit(folder) -> None:
    victim = max((folder / "params").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)


def test_damage_is_found_and_named(run):
    before = sorted(p for p in run.rglob("*"))
    sound = rows(run, True)
    assert list(sound) == [(NAMES[0], 3), ("checkpoints", 10), ("checkpoints", 20), ("best", 10)]
    assert all(r.wrong is None and r.examples == 8 * r.step for r in sound.values())
    flip_a_bit(run / "checkpoints" / "20")
    assert all(r.wrong is None for r in rows(run, False).values())
    found = rows(run, True)
    assert {k for k, r in found.items() if r.wrong} == {("checkpoints", 20)}
    assert "differs from its checksum" in found["checkpoints", 20].wrong
    assert sorted(p for p in run.rglob("*")) == before
    shutil.rmtree(run / "best" / "10" / "meta")
    found = rows(run, False)["best", 10]
    assert "missing" in found.wrong and found.examples == "?"


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_exit_status_is_one_where_something_is_damaged(run):
    command = [sys.executable, "-m", "medjax.bin.checkpoints", f"--workdir={run}", "--verify"]
    fine = subprocess.run(command, capture_output=True, text=True, check=False)
    assert fine.returncode == 0 and "4 checkpoints, 0 of them damaged" in fine.stdout, fine.stderr
    flip_a_bit(run / "checkpoints" / "10")
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    (line,) = (line for line in broken.stdout.splitlines() if "differs from its checksum" in line)
    assert line.split()[:2] == ["checkpoints", "10"]
