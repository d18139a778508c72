"""Misspelt recipes, keys and flags end in one line that names the nearest, with exit status 2."""

import json
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


# A program, forked from one process that has imported all of it: flags on a line in, what became of them on a line out.
SCRIPT = """
import json, os, sys, tempfile
import medjax.training.experiment, medjax.training.published  # as recipes do
from absl import flags
from ml_collections import config_flags
from medjax.bin import cli
from medjax.errors import UserError
config = config_flags.DEFINE_config_file("config", None, "", lock_config=True)
flags.DEFINE_string("workdir", None, "")
def main():
    print("steps", config.value.train.total_steps if config.value else None)
    raise UserError("the end")
for line in sys.stdin:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        number = os.fork()
        if number == 0:
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            sys.argv = ["program", *json.loads(line)]
            cli.run(main)
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        print(json.dumps([status, *(os.pread(f.fileno(), 1 << 20, 0).decode() for f in (out, err))]), flush=True)
"""


@pytest.fixture(scope="module")
def run():
    """`run(*flags)` gives (status, stdout, stderr) of the program."""
    command, pipe = [sys.executable, "-c", SCRIPT], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as program:

        def ended(*flags):
            program.stdin.write(json.dumps(flags) + "\n")
            program.stdin.flush()
            return tuple(json.loads(program.stdout.readline()))

        yield ended
        program.stdin.close()


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
def test_misspelt_flags_end_the_process_with_the_nearest(run, flags, message):
    status, printed, errors = run(*flags)
    assert status == 2 and not printed
    (line,) = errors.strip().splitlines()
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
def test_valid_flags_pass_and_what_was_printed_before_an_error_is_not_lost(run, flags, steps):
    assert run(*flags) == (2, f"steps {steps}\n", "error: the end\n")


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
