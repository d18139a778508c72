"""The status with which a program ends tells whether to start it again."""

import errno

import pytest

from medjax.errors import EXIT_BAD_INPUT, EXIT_HUNG, EXIT_STORAGE, StorageError, UserError
from medjax.training.exits import status

_GLOO = ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:40533")


@pytest.mark.parametrize(
    ("error", "several", "expected"),
    [
        (UserError("a bad flag"), True, EXIT_BAD_INPUT),
        (StorageError("no answer"), False, EXIT_STORAGE),
        (OSError(errno.ENOSPC, "No space left on device"), False, EXIT_STORAGE),
        (OSError(errno.ENOENT, "No such file"), False, 1),
        (_GLOO, True, EXIT_HUNG),
        (_GLOO, False, 1),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), True, 1),
        (KeyError("peer"), True, 1),
    ],
    ids=["input", "storage", "disk", "file", "lost", "alone", "memory", "bug"],
)
def test_status(error, several, expected):
    assert status(error, several) == expected
