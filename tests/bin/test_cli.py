"""Misspelt recipes, keys and flags end in one line that names the nearest, with exit status 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medjax.bin import cli
from medjax.errors import UserError

ROOT = Path(__file__).parent.parent.parent
PHANTOM = str(ROOT / "configs" / "phantom.py")


class LeftError(Exception):
    """Instead of leaving the process."""


@pytest.fixture
def leave(monkeypatch):
    """Raises `LeftError(status)` where a binary would leave."""

    def raise_instead(status):
        raise LeftError(status)

    monkeypatch.setattr(os, "_exit", raise_instead)


def one_line(capsys) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_a_recipe_is_loaded_with_its_argument():
    assert cli.load_config(PHANTOM).train.total_steps != 7
    assert cli.load_config(f"{PHANTOM}:steps=7").train.total_steps == 7


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'phantom'"):
        cli.load_config(PHANTOM.replace("phantom", "fantom"))


def test_an_unknown_argument_of_a_recipe_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="'objectiv'; did you mean 'objective'"):
        cli.load_config(f"{PHANTOM}:objectiv=sum")


SCRIPT = """
from absl import flags
from ml_collections import config_flags
from medjax.bin import cli
from medjax.errors import UserError
config = config_flags.DEFINE_config_file("config", None, "", lock_config=True)
flags.DEFINE_string("workdir", None, "")
def main():
    print("steps", config.value.train.total_steps if config.value else None)
    raise UserError("the end")
cli.run(main)
"""


def run(*flags) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", SCRIPT, *flags], capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            [f"--config={PHANTOM}", "--config.train.total_stepz=3"],
            "config.train has no key 'total_stepz'; did you mean",
        ),
        (["--config", PHANTOM, "--config.train.total_stepz", "3"], "did you mean 'total_steps'"),
        ([f"--config={PHANTOM}", "--config.trian.total_steps=3"], "config has no key 'trian'; did you mean 'train'"),
        ([f"--config={PHANTOM}", "--config.seed.x=3"], "config.seed has no key 'x'"),
        ([f"--config={PHANTOM.replace('phantom', 'phantm')}"], "did you mean 'phantom'"),
        (["--config", PHANTOM.replace("phantom", "phantm")], "did you mean 'phantom'"),
        ([f"--config={PHANTOM}:stepps=3"], "did you mean 'steps'"),
        ([f"--config={PHANTOM}", "--config.train.total_steps=soon"], "soon"),
        ([f"--config={PHANTOM}", "--workdri=x"], "workdir"),
        ([f"--config={PHANTOM}", "stray"], "unexpected argument 'stray'"),
    ],
)
def test_misspelt_flags_end_the_process_with_the_nearest(flags, message):
    ended = run(*flags)
    assert ended.returncode == 2 and not ended.stdout
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ([], "None"),
        ([f"--config={PHANTOM}", "--config.train.total_steps=3"], "3"),
        (["--config", PHANTOM, "--config.train.total_steps", "4"], "4"),
        ([f"--config={PHANTOM}:steps=5", "--workdir=x"], "5"),
    ],
)
def test_valid_flags_pass_and_what_was_printed_before_an_error_is_not_lost(flags, steps):
    ended = run(*flags)
    assert (ended.stdout, ended.stderr, ended.returncode) == (f"steps {steps}\n", "error: the end\n", 2)


def test_bad_input_is_one_line_even_if_the_message_has_several(leave, capsys):
    def main():
        raise UserError("first\n  second")

    with pytest.raises(LeftError, match="2"):
        cli._guarded(main)
    assert one_line(capsys) == "error: first second"


def test_other_errors_keep_their_trace(leave):
    def main():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        cli._guarded(main)
