"""Errors for the person who reads them: the offender, the nearest valid name, the fix."""

import difflib
from collections.abc import Iterable

# Exit statuses of programs beside 0, done: whoever starts them again does so after all of these but the first.
EXIT_BAD_INPUT = 2
EXIT_STORAGE = 74  # storage failed after all attempts
EXIT_PREEMPTED = 75  # asked to leave, and saved
EXIT_HUNG = 76  # no progress, or other processes of the run are lost


class UserError(ValueError):
    """Bad input, configuration or files. The message is one line; binaries print it without a stack trace."""


class StorageError(UserError):
    """Storage failed after all attempts: nothing need be wrong with what was asked, and it may be asked again."""


class LayoutError(UserError):
    """Bad input that is a whole source or table: the message names its path, columns and options, and no patient."""


def suggest(name: str, valid: Iterable[str]) -> str:
    """Returns `"did you mean 'x'? valid: a, b, x"` for an unknown `name`."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid: {', '.join(names) or '(none)'}"


def check_choice(what: str, name: str, valid: Iterable[str]) -> None:
    """Raises UserError, naming the nearest valid name, unless `name` is one of `valid`."""
    names = list(valid)
    if name not in names:
        raise UserError(f"unknown {what} {name!r}; {suggest(name, names)}")
