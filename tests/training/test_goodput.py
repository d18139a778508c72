"""Goodput: the parts add up to the wall time, and what has to be done again is lost."""

import json

import jax
import jax.numpy as jnp
import pytest

from medjax.training import goodput
from medjax.training.goodput import PARTS, Goodput


class Clock:
    """In the place of the module `time`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(goodput, "time", clock)
    return clock


def _steps(clock: Clock, watch: Goodput, steps: int) -> None:
    """Of 2 seconds, each after a second of waiting for data."""
    for _ in range(steps):
        with watch.waiting(lambda: True):
            clock.wait(1.0)
        clock.wait(2.0)


def _save(clock: Clock, watch: Goodput, step: int) -> None:
    with watch.saving(step):
        clock.wait(4.0)


def _nonzero(watch: Goodput) -> dict[str, float]:
    return {k: pytest.approx(x) for k, x in watch.seconds().items() if x}


def test_parts_add_up_to_the_wall_time_and_inner_ones_interrupt_outer_ones(clock):
    watch = Goodput(None)
    clock.wait(5.0)
    watch.training_from(0)
    _steps(clock, watch, 3)
    with watch.part("eval"):
        clock.wait(7.0)
        with watch.part("save"):
            clock.wait(1.0)
        clock.wait(2.0)
    with watch.waiting(lambda: False):  # the devices were still at work: no wait
        clock.wait(1.0)
    watch.close()
    assert _nonzero(watch) == {"init": 5.0, "step": 7.0, "data_wait": 3.0, "eval": 9.0, "save": 1.0}
    row = watch.row()
    assert row["goodput/wall_seconds"] == clock.now - 1000.0 == sum(row[f"goodput/{k}_seconds"] for k in PARTS)
    assert row["goodput/share"] == pytest.approx(7.0 / 25.0)


def test_a_restart_loses_what_came_after_its_checkpoint_and_counts_the_time_in_between(clock, tmp_path):
    path = tmp_path / goodput.FILE
    first = Goodput(path)
    clock.wait(5.0)
    first.training_from(0)
    _steps(clock, first, 10)
    _save(clock, first, 10)
    _steps(clock, first, 2)
    _save(clock, first, 12)  # will turn out to be damaged
    _steps(clock, first, 5)
    first.record()  # killed after this
    clock.wait(60.0)
    second = Goodput(path)
    clock.wait(3.0)
    second.training_from(10)
    want = {"init": 8.0, "step": 20.0, "data_wait": 10.0, "save": 4.0, "lost": 7 * 3.0 + 4.0, "down": 60.0}
    assert _nonzero(second) == want
    _steps(clock, second, 4)
    _save(clock, second, 14)
    second.close()
    want |= {"step": 28.0, "data_wait": 14.0, "save": 8.0}
    assert _nonzero(second) == want
    assert sum(second.seconds().values()) == pytest.approx(clock.now - 1000.0)
    third = Goodput(path)  # nothing is lost where the newest checkpoint is the last thing done
    third.training_from(14)
    third.close()
    assert _nonzero(third) == want
    assert third.summary().startswith("wall time since the first of 3 starts")


def test_going_back_within_a_start_loses_the_steps_too(clock):
    watch = Goodput(None)
    watch.training_from(0)
    _steps(clock, watch, 4)
    _save(clock, watch, 4)
    _steps(clock, watch, 2)
    watch.training_from(4)
    _steps(clock, watch, 1)
    watch.close()
    assert _nonzero(watch) == {"step": 10.0, "data_wait": 5.0, "save": 4.0, "lost": 6.0}


def test_a_torn_file_is_no_reason_not_to_train(clock, tmp_path, caplog):
    path = tmp_path / goodput.FILE
    path.write_text('{"recorded": 1.0, "sec')
    with caplog.at_level("WARNING", "medjax"):
        watch = Goodput(path)
    assert "cannot be read" in caplog.text
    watch.close()
    assert json.loads(path.read_text())["starts"] == 1


def test_compilation_is_taken_out_of_the_part_that_it_interrupts():
    watch = Goodput(None)
    watch.training_from(0)
    told: list[float] = []

    def listen(event: str, seconds: float, **_) -> None:
        told.append(seconds if "/backend_compile_duration" in event else 0.0)

    jax.monitoring.register_event_duration_secs_listener(listen)
    inner = jax.jit(lambda x: jnp.sin(x) @ x.T)
    with watch.part("eval"):
        jax.jit(lambda x: inner(x) + inner(x + 1.0))(jnp.ones((8, 8)))
    jax.monitoring.unregister_event_duration_listener(listen)
    watch.close()
    seconds = watch.seconds()
    wall = sum(seconds.values())
    # Nested traces count once: the part that remains is never negative.
    assert 0 < sum(told) <= seconds["compile"] < wall
    assert all(seconds[k] >= 0 for k in PARTS)
