"""Time and peak memory of one function, in a process of its own."""

import multiprocessing
import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from medjax.benchmarks.contestants import CONTESTANTS, inputs


class Result(NamedTuple):
    """seconds: median of a call after the first. peak_bytes: the largest resident memory above its level before the
    first call. loss: the value, to compare."""

    seconds: float
    peak_bytes: int
    loss: float


def measure(name: str, rows: int, modalities: int, width: int, calls: int) -> Result | str:
    """Runs a contestant of `CONTESTANTS` in a fresh process; a text says what it lacks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(theirs, name, rows, modalities, width, calls))
    child.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        child.join()
        return f"failed with exit status {child.exitcode}"
    child.join()
    return Result(**answer) if isinstance(answer, dict) else answer


def _serve(pipe, name: str, rows: int, modalities: int, width: int, calls: int) -> None:
    try:
        call = CONTESTANTS[name](inputs(rows, modalities, width))
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
    pipe.send({"seconds": statistics.median(times), "peak_bytes": max(_peak(), peak) - before, "loss": loss})


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
