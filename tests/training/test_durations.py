"""Durations in every unit become steps."""

import pytest

from medjax.errors import UserError
from medjax.training.durations import Clock, take_durations


@pytest.mark.parametrize(
    ("value", "unit", "steps"),
    [
        (7, "steps", 7),
        (2, "epochs", 7),
        (100, "examples", 4),
        (10, "percent", 5),
        (0.1, "percent", 1),
        (0, "epochs", 0),
    ],
)
def test_units_convert_to_whole_steps(value, unit, steps):
    clock = Clock(batch_size=30, examples=100, total_steps=50)
    assert clock.steps(value, unit) == steps


def test_a_total_cannot_be_a_percentage_of_itself():
    with pytest.raises(UserError, match="total duration cannot be a percentage"):
        Clock(30, 100).steps(5, "percent")


def test_durations_are_taken_out_of_the_options():
    rest, found = take_durations(
        {"total_epochs": 3, "keep": 2, "log_every_steps": 1}, ("total", "log_every"), "config.train"
    )
    assert rest == {"keep": 2}
    assert found == {"total": (3, "epochs"), "log_every": (1, "steps")}


def test_one_duration_in_two_units_is_refused():
    with pytest.raises(UserError, match=r"config\.train\.total is given in epochs and in steps"):
        take_durations({"total_epochs": 3, "total_steps": 2}, ("total",), "config.train")


@pytest.mark.parametrize("bad", [-1, "ten", True])
def test_a_duration_that_is_no_number_is_named(bad):
    with pytest.raises(UserError, match=r"config\.train\.total_steps"):
        take_durations({"total_steps": bad}, ("total",), "config.train")
