"""Runs that are killed at random moments end as those that never were: real processes, real signals."""

import os
import random
import signal

import pytest
from runs import STEPS, assert_same, last_logged, output, until

from medjax.errors import EXIT_HUNG, EXIT_PREEMPTED

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]


def _is_saving(workdir) -> bool:
    """Whether a checkpoint is being written or sealed."""
    folders = [p for p in (workdir / "checkpoints").glob("*") if p.is_dir() and p.name != "damaged"]
    return any("tmp" in p.name or not (p / "checksums.json").exists() for p in folders)


def _kill(server, workdir, rng, how, numbers) -> None:
    """Ends a run that has started, at a moment that depends on `how`, and looks at how it ended."""
    target = last_logged(workdir) + rng.randint(1, 3)
    if how == "start":
        until(lambda: (workdir / "run.lock").exists(), *numbers)
    elif how == "save":
        until(lambda: last_logged(workdir) >= target and _is_saving(workdir), *numbers)
    else:
        until(lambda: last_logged(workdir) >= target, *numbers)
    victim = rng.choice(numbers)
    os.kill(victim, signal.SIGTERM if how == "term" else signal.SIGKILL)
    found = server.wait(*numbers)
    for number, status in zip(numbers, found, strict=True):
        if how == "term":
            expected = [EXIT_PREEMPTED]
        else:  # the others notice, and end by themselves
            expected = [-signal.SIGKILL] if number == victim else [EXIT_HUNG, -signal.SIGABRT]
        assert status in [*expected, 0], (how, found, output(workdir))
    assert how != "term" or len(set(found)) == 1, (found, output(workdir))


@pytest.mark.parametrize(
    ("processes", "devices", "kills"),
    [
        (
            1,
            2,
            (*("save", "step", "start", "term") * 2, "save", "save", "step", "term", "step", "save", "start", "save"),
        ),
        (2, 1, ("term", "save", "step", "term")),
    ],
    ids=["one-process", "two-processes"],
)
def test_twenty_kills_change_no_bit(server, request, tmp_path, processes, devices, kills):
    rng = random.Random(processes)
    size = {"processes": processes, "devices": devices}
    killed = tmp_path / "killed"
    if processes == 1:
        whole = request.getfixturevalue("whole_run")
    else:
        whole = tmp_path / "whole"
        server.train(whole, **size)
    for how in kills:
        _kill(server, killed, rng, how, server.start(killed, **size))
    assert 0 < last_logged(killed) < STEPS, "the run ended before the kills did"
    server.train(killed, **size)
    assert_same(killed, whole, STEPS)
