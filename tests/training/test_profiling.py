"""Traces hold the steps that were asked for, and no other."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.profiler import ProfileData
from toy_method import Toy, toy_batch

from medjax import losses
from medjax.errors import UserError
from medjax.sharding import MeshConfig, make_mesh
from medjax.training import profiling
from medjax.training.profiling import FOLDER, TRIGGER, Profiler
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step


def _steps_traced(workdir) -> list[int]:
    """The numbers of the steps in all traces."""
    events = (
        event
        for path in (workdir / FOLDER).rglob("*.xplane.pb")
        for plane in ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
    )
    return sorted(int(dict(e.stats)["step_num"]) for e in events if e.name == "train")


@pytest.fixture
def run(monkeypatch):
    """Runs steps with a profiler, from one number to another."""
    monkeypatch.setattr(profiling, "_LOOK_EVERY", 0.0)
    step = jax.jit(lambda x: (x @ x, {"loss": x.sum()}))

    def run(profiler: Profiler, first: int, last: int) -> None:
        x = jnp.eye(4)
        for number in range(first, last + 1):
            x, metrics = profiler(number, step, x)
        assert float(metrics["loss"]) == 4.0

    return run


def test_the_steps_that_were_asked_for_are_traced(run, tmp_path):
    profiler = Profiler(tmp_path, "2:3")
    run(profiler, 1, 5)
    assert _steps_traced(tmp_path) == [2, 3]
    run(Profiler(tmp_path, "2:3"), 4, 5)  # gone on with behind them
    assert _steps_traced(tmp_path) == [2, 3]


def test_a_file_asks_for_the_next_steps_of_a_run_that_is_under_way(run, tmp_path):
    profiler = Profiler(tmp_path, "")
    run(profiler, 1, 2)
    assert not (tmp_path / FOLDER).exists()
    (tmp_path / TRIGGER).write_text("2\n")
    run(profiler, 3, 6)
    assert _steps_traced(tmp_path) == [3, 4]
    assert not (tmp_path / TRIGGER).exists()


def test_a_run_that_ends_within_the_steps_keeps_the_trace(run, tmp_path):
    profiler = Profiler(tmp_path, "3:9")
    run(profiler, 1, 4)
    profiler.close()
    assert _steps_traced(tmp_path) == [3, 4]


@pytest.mark.parametrize("steps", ["10", "15:10", "0:3", "a:b"])
def test_steps_that_are_no_range_are_refused(steps, tmp_path):
    with pytest.raises(UserError, match=r"profile_steps=.*such as 10:15"):
        Profiler(tmp_path, steps)


def test_operations_of_a_step_are_named_by_its_parts():
    method, tx, batch = Toy(losses.get("info_nce", impl="dense")), optax.adam(0.1), toy_batch(np.random.default_rng(0))
    state = StateFactory(method, tx, make_mesh(MeshConfig(), jax.devices()[:1]), batch).abstract()
    program = make_train_step(method, tx, lambda step: 0.1, 0).lower(state, batch).as_text(debug_info=True)
    names = re.findall(r'loc\("([^"]*)"', program)
    for part, operation in (("encode", "tanh"), ("objective", "exp"), ("update", "sqrt")):
        assert any(part in name and name.endswith(operation) for name in names), part
    assert any("transpose" in name and "encode" in name for name in names)  # the backward pass too
