"""How a training program ends: with a status that tells whoever starts it whether to do so again."""

import errno
import re

import jax

from medjax.errors import EXIT_BAD_INPUT, EXIT_HUNG, EXIT_STORAGE, StorageError, UserError

# Of the storage, not of the program; what is missing or forbidden is for the person who reads the message.
_STORAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT, errno.EFBIG})
# How the errors of collectives begin or name what failed, once a process of the run or the way to it is gone.
_LOST = re.compile(
    r"gloo|nccl|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|coordination service|heartbeat|connection|socket|peer",
    re.IGNORECASE,
)


def status(error: BaseException, several: bool) -> int:
    """The exit status for an error; 1 is a bug. several: whether the run has several processes, which may be lost."""
    if isinstance(error, UserError):
        return EXIT_STORAGE if isinstance(error, StorageError) else EXIT_BAD_INPUT
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return EXIT_STORAGE
    raised_by_jax = isinstance(error, jax.errors.JaxRuntimeError | ValueError | RuntimeError)
    return EXIT_HUNG if several and raised_by_jax and _LOST.search(str(error)) else 1
