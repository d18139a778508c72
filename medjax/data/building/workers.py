"""Writing the shards of a build in this process or in several."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from medjax.data.building.shards import Encoder, Receipt, ShardTask, write_shard
from medjax.errors import UserError

_POLL = 0.2  # seconds between two looks at the progress of other processes


def write_shards(
    encoder: Encoder, tasks: Sequence[ShardTask], allowed: int, workers: int, tick: Callable[[int], None]
) -> Iterator[Receipt]:
    """Receipts as shards are complete, in any order. tick: called with the studies done since the last call.

    Raises:
      UserError: a worker process died.
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            receipt = write_shard(encoder, task, allowed, lambda: tick(1))
            allowed -= len(receipt.rejected)
            yield receipt
        return
    yield from _in_processes(encoder, tasks, allowed, min(workers, len(tasks)), tick)


def _in_processes(
    encoder: Encoder, tasks: Sequence[ShardTask], allowed: int, workers: int, tick: Callable[[int], None]
) -> Iterator[Receipt]:
    context = multiprocessing.get_context("spawn")
    done, stop, seen = context.Value("q", 0), context.Event(), 0
    with ProcessPoolExecutor(workers, context, _start, (done, stop)) as pool:
        pending = {pool.submit(_write, encoder, task, allowed) for task in tasks}
        try:
            while pending:
                finished, pending = wait(pending, _POLL, FIRST_COMPLETED)
                now = done.value
                tick(now - seen)
                seen = now
                for future in finished:
                    yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps for want of memory; the same command goes on where it stopped, if need "
                "be with fewer --workers"
            ) from None
        finally:
            stop.set()  # whoever gives up early need not wait for whole shards
            pool.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """The build has been given up."""


def _start(done, stop) -> None:
    """Prepares a worker: it counts what it does, leaves Ctrl-C to its parent, and does not outlive it."""
    global _done, _stop
    _done, _stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _tick() -> None:
    with _done.get_lock():
        _done.value += 1
    if _stop.is_set():
        raise _StoppedError


def _write(encoder: Encoder, task: ShardTask, allowed: int) -> Receipt:
    return write_shard(encoder, task, allowed, _tick)
