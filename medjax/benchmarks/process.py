"""Time and peak memory of one function, in a process of its own."""

import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Result(NamedTuple):
    """seconds: median of a call after the first. peak_bytes: the largest resident memory above its level before the
    first call. loss: the value of the last call, to compare. facts: what the function has to say of itself at the end,
    where it has a method of that name."""

    seconds: float
    peak_bytes: int
    loss: float
    facts: dict[str, Any] | None = None


def measure(make: Callable[[], Callable[[], float]], calls: int) -> Result | str:
    """Runs what `make` makes, a function that returns its loss, in a fresh process; a text says what it lacks.

    make: picklable, it imports what it needs itself.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(theirs, make, calls))
    child.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        child.join()
        return f"failed with exit status {child.exitcode}"
    child.join()
    return Result(**answer) if isinstance(answer, dict) else answer


def _serve(pipe, make: Callable[[], Callable[[], float]], calls: int) -> None:
    try:
        call = make()
    except ModuleNotFoundError as error:
        pipe.send(f"{error.name} is not installed")
        return
    before, peak = _resident(), _peak()
    loss = call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        loss = call()
        times.append(time.perf_counter() - start)
    found = {"seconds": statistics.median(times), "peak_bytes": max(_peak(), peak) - before, "loss": loss}
    pipe.send(found | {"facts": call.facts() if hasattr(call, "facts") else None})


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> str:
    """What the figures were measured on, in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpu}, {cores} cores"
