"""Errors for the person who reads them: the offender, the nearest valid name, the fix."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input, configuration or files. The message is one line; binaries print it without a stack trace."""


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
