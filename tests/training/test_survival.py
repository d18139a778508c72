"""What a run survives within a process: bad numbers, a loss that jumps, being asked to leave while it evaluates."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from runs import RECIPE, assert_same, checkpoint, rows

from medjax.bin.cli import load_config
from medjax.data import Dataset
from medjax.errors import UserError
from medjax.training import loop
from medjax.training.guards import Guards
from medjax.training.preemption import Preempted

pytestmark = pytest.mark.slow
STEPS, SIZE = 7, 16


@pytest.fixture
def make_recipe(phantom_dir):
    def make(**train):
        config = load_config(f"{RECIPE}:steps={STEPS}")
        config.data.dir = str(phantom_dir)
        config.train.update(train)
        return config

    return make


@pytest.fixture(scope="module")
def uninterrupted(phantom_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    config = load_config(f"{RECIPE}:steps={STEPS}")
    config.data.dir = str(phantom_dir)
    loop.run(config, workdir)
    return workdir


def _change_training(monkeypatch, change) -> None:
    """Batches of training pass through `change(number, batch)`, which gives None for one to leave out."""
    real = Dataset.train

    def train(self, seed, start, batch, *rest):
        for number, found in enumerate(real(self, seed, start, batch, *rest), start // batch + 1):
            if (changed := change(number, found)) is not None:
                yield changed

    monkeypatch.setattr(Dataset, "train", train)


def _spoil(batch, value: float):
    ecg = batch.items["ecg"]
    return replace(batch, items={**batch.items, "ecg": replace(ecg, value=np.full_like(ecg.value, value))})


def _assert_state_is_same(workdir, step: int, other: int) -> None:
    (a, _), (b, _) = (checkpoint(workdir, s) for s in (step, other))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("value", [np.nan, 1e38], ids=["nan", "overflow"])
def test_a_step_that_is_not_finite_is_skipped_counted_and_named(make_recipe, tmp_path, monkeypatch, value):
    config, ids = make_recipe(checkpoint_every_steps=1, keep=STEPS), []

    def change(number, batch):
        if number != 3:
            return batch
        ids.append(batch.ids["example"])
        return _spoil(batch, value)

    _change_training(monkeypatch, change)
    loop.run(config, tmp_path / "run", stop_at_step=4)
    _assert_state_is_same(tmp_path / "run", 3, 2)
    loop.run(config, tmp_path / "run")
    expected = {"step": 3, "examples": [x.tobytes().hex() for x in ids[-1]]}
    assert list(rows(tmp_path / "run", "skipped.jsonl")) == [expected]
    assert [r["train/skipped_steps"] for r in rows(tmp_path / "run") if "train/loss" in r] == [0, 0, 1, 1, 1, 1, 1]
    assert all(np.isfinite(x).all() for x in checkpoint(tmp_path / "run", STEPS)[0].values())


def test_many_in_a_row_stop_the_run_at_a_sound_checkpoint(make_recipe, uninterrupted, tmp_path, monkeypatch):
    config, workdir = make_recipe(checkpoint_every_steps=1, keep=STEPS, max_bad_steps=2), tmp_path / "run"
    with monkeypatch.context() as patch:
        _change_training(patch, lambda number, batch: _spoil(batch, np.nan) if number >= 4 else batch)
        with pytest.raises(UserError, match="in 2 steps in a row, the last 5"):
            loop.run(config, workdir)
    _assert_state_is_same(workdir, 4, 3)
    assert not (workdir / "checkpoints" / "5").exists()
    loop.run(config, workdir)  # without the damage it goes on
    assert all(np.isfinite(x).all() for x in checkpoint(workdir, STEPS)[0].values())


def test_asked_to_leave_in_an_evaluation_the_run_does_it_again(make_recipe, uninterrupted, tmp_path, monkeypatch):
    real, workdir, left = Dataset.evaluation, tmp_path / "run", []

    def evaluation(self, *args):
        if left.pop():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # a thread hears of it
        return real(self, *args)

    # Each evaluation, the last step's too; before it the one that the start before has left.
    for step, asks in ((3, [True]), (6, [True, False]), (7, [True, False])):
        left[:] = asks
        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "evaluation", evaluation)
            with pytest.raises(Preempted, match=f"after step {step}, which is saved"):
                loop.run(make_recipe(), workdir)
        assert checkpoint(workdir, step)[1]["evaluated"] != step
    loop.run(make_recipe(), workdir)
    assert not (workdir / "run.lock").exists()
    _, meta = checkpoint(workdir, STEPS)
    assert meta["evaluated"] == 6  # a step that is saved stays as it is; all else is the same
    assert_same(workdir, uninterrupted, STEPS, but=("evaluated", "best_value", "validation"))


def test_after_a_jump_the_run_goes_on_without_what_led_there(make_recipe, tmp_path, monkeypatch):
    train = {"spike_deviations": 5.0, "spike_window": 2, "max_rollbacks": 1}
    back, reference = tmp_path / "back", tmp_path / "reference"
    real = Guards._check_spike

    def check(self, step, loss):
        real(self, step, 1e6 if step == 5 and not self.rollbacks else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(Guards, "_check_spike", check)
        loop.run(make_recipe(**train), back, stop_at_step=6)
        loop.run(make_recipe(**train), back)
    with monkeypatch.context() as patch:  # back at step 4, it leaves out the fifth batch
        _change_training(patch, lambda number, batch: None if number == 5 else batch)
        loop.run(make_recipe(), reference)
    (a, meta), (b, _) = (checkpoint(w, STEPS) for w in (back, reference))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert meta["guards"]["rollbacks"] == 1 and meta["examples_seen"] == (STEPS + 1) * SIZE
    steps = [json.loads(x)["step"] for x in (back / "metrics.jsonl").read_text().splitlines() if "train/loss" in x]
    assert steps == list(range(1, STEPS + 1))
