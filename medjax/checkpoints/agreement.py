"""Several processes that must do the same: one looks, all know."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from medjax.errors import StorageError

_FAILED = -2


def agreed(call: Callable[[], int]) -> int:
    """What the call, made in process 0 alone, gives there: at least -1. All processes must ask together.

    Raises:
      StorageError: it failed in process 0, which raises what it was.
    """
    if jax.process_count() == 1:
        return call()
    answer, error = _FAILED, None
    if jax.process_index() == 0:
        try:
            answer = call()
        except Exception as caught:  # the others wait for an answer
            error = caught
    answer = int(multihost_utils.broadcast_one_to_all(np.int32(answer)))
    if error is not None:
        raise error
    if answer == _FAILED:
        raise StorageError("process 0 could not look at the checkpoints; its log says why")
    return answer


def anywhere(here: bool) -> bool:
    """Whether it is so in any process. All must ask together."""
    return here if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.int32(here)).any())
