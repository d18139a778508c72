"""A bounded number of attempts, each with a time-out, after which an error names what was tried and why it failed.

`MEDJAX_STORAGE_TIMEOUT` (seconds, an attempt) and `MEDJAX_STORAGE_ATTEMPTS` change the bounds for a whole program.
Only what needs no other process may be repeated: never a call that all processes of a run make together.
"""

import errno
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from medjax.errors import StorageError, UserError

log = logging.getLogger("medjax")
T = TypeVar("T")
_FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
_FINAL_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG})
_FINAL_STATUS = frozenset({400, 401, 403, 404, 412})


@dataclass(frozen=True)
class Retries:
    """attempts: in all. timeout: seconds of each; 0 waits for ever. wait: seconds before the second; it doubles, to at
    most longest_wait, and is drawn from the upper half, so that a thousand processes do not come back at once.
    """

    attempts: int = 5
    timeout: float = 120.0
    wait: float = 1.0
    longest_wait: float = 30.0

    @classmethod
    def default(cls) -> "Retries":
        """What the environment says."""
        found = cls()
        try:
            attempts = int(os.environ.get("MEDJAX_STORAGE_ATTEMPTS", found.attempts))
            timeout = float(os.environ.get("MEDJAX_STORAGE_TIMEOUT", found.timeout))
        except ValueError as error:
            raise UserError(f"MEDJAX_STORAGE_ATTEMPTS and MEDJAX_STORAGE_TIMEOUT must be numbers: {error}") from None
        return replace(found, attempts=max(attempts, 1), timeout=timeout)


def with_retries(call: Callable[[], T], what: str, retries: Retries | None = None) -> T:
    """`call()`, again after an error or when its time is over. what: "reading gs://...", for messages.

    A call whose time is over goes on in a thread of its own that nobody waits for: what it does twice must be harmless.

    Raises:
      FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, UserError: as the call did, at once.
      StorageError: no permission, no room, or the last attempt failed; names `what` and the cause.
    """
    retries = retries or Retries.default()
    wait, attempt = retries.wait, 0
    while True:
        attempt += 1
        try:
            return _within(call, retries.timeout)
        except UserError:
            raise
        except Exception as error:  # clients of object stores raise many types
            if isinstance(error, _FINAL) and not isinstance(error, PermissionError):
                raise
            cause = _cause(error, retries.timeout)
            if _is_final(error):
                raise StorageError(f"{what} failed: {cause}") from None
            if attempt >= retries.attempts:
                raise StorageError(f"{what} failed {attempt} times, the last time: {cause}") from None
            log.warning("%s failed (%s); attempt %d of %d follows", what, cause, attempt + 1, retries.attempts)
        time.sleep(wait * random.uniform(0.5, 1))
        wait = min(2 * wait, retries.longest_wait)


def _is_final(error: Exception) -> bool:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in _FINAL_ERRNO:
        return True
    code = str(getattr(error, "code", ""))
    return (code.isdigit() and int(code) in _FINAL_STATUS) or str(error).startswith("Forbidden")  # gcsfs' 403


def _cause(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {timeout:g} s"
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def _within(call: Callable[[], T], seconds: float) -> T:
    if not seconds:
        return call()
    result: list[Any] = [None, None]

    def run() -> None:
        try:
            result[0] = call()
        except BaseException as error:  # handed to the caller
            result[1] = error

    thread = threading.Thread(target=run, name="medjax-storage", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if result[1] is not None:
        raise result[1]
    return result[0]
