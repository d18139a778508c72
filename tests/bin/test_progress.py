"""The progress bar counts, and says how long it will take."""

import sys

import pytest

from medjax.bin.progress import Progress


class Clock:
    """Time that a test makes pass."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(capsys, seconds: float, steps, total: int) -> str:
    clock = Clock()
    progress = Progress("studies", clock)
    for done in steps:
        progress(done, total)
        clock.now += seconds
    return capsys.readouterr().err


def test_a_log_gets_few_lines_and_always_the_last(capsys):
    lines = run(capsys, 1.0, range(1, 101), 100).splitlines()
    assert 2 <= len(lines) <= 6
    assert lines[-1].startswith("100/100 studies")


@pytest.mark.parametrize("before", [0, 500])
def test_what_was_done_before_is_not_speed(capsys, before):
    line = run(capsys, 40.0, [before, before + 100, before + 200], 1000).splitlines()[-1]
    assert f"{before + 200}/1000 studies, 2.5/s" in line
    assert f"0:0{(1000 - before - 200) / 2.5 // 60:.0f}:" in line


def test_a_terminal_gets_one_line_that_fills(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    out = run(capsys, 1.0, range(1, 11), 10)
    assert out.count("\n") == 1 and out.endswith("\n")
    filled = [part.count("#") for part in out.split("\r")[1:]]
    assert filled == sorted(filled) and filled[-1] == 30


def test_nothing_to_do_is_no_error(capsys):
    Progress("studies")(0, 0)
    assert "0/0 studies" in capsys.readouterr().err
