"""What the fake programs share: each writes down its arguments, once it can be signalled."""

import json
import os
import sys
from pathlib import Path

HOME = Path(os.environ["FAKE_HOME"])


def calls(program: str) -> int:
    """How often a program was called."""
    file = HOME / f"calls.{program}"
    return len(file.read_text().splitlines()) if file.exists() else 0


def record(program: str, arguments: list[str]) -> int:
    """Writes the arguments down; the number of calls before this one."""
    before = calls(program)
    with (HOME / f"calls.{program}").open("a") as f:
        f.write(json.dumps(arguments) + "\n")
    return before


def flag(name: str, default: str) -> str:
    """The value of --name=value among the arguments."""
    return next((a.split("=", 1)[1] for a in sys.argv if a.startswith(f"--{name}=")), default)
