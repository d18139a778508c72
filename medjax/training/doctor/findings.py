"""What a check finds, on one process and on all of them together."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum

import jax
import numpy as np
from jax.experimental import multihost_utils

from medjax.errors import UserError

_WIDTH = 20


class Status(IntEnum):
    """How bad it is."""

    OK = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True)
class Finding:
    """One line of the page. advice: what to do about it. same: all processes must find the same.

    fatal: nothing else can be checked.
    """

    name: str
    status: Status
    found: str
    advice: str = ""
    same: bool = False
    fatal: bool = False


@dataclass(frozen=True)
class Check:
    """name: in case it fails to answer. look: what it does."""

    name: str
    look: Callable[[], Iterable[Finding]]


def examine(checks: Sequence[Check], seconds: float) -> list[Finding]:
    """What all checks find on this process; all processes must call it with the same checks.

    A check that raises is a failure of its own. When `seconds` are over while one still runs, what was found so far is
    printed and the process ends with status 1: a collective that hangs cannot be interrupted.
    """
    findings: list[Finding] = []
    running = [""]
    started = time.monotonic()

    def give_up() -> None:
        advice = "another process has failed or cannot be reached, or it is slow: --seconds=600"
        hung = Finding(running[0], Status.FAIL, f"no answer after {time.monotonic() - started:.0f} s", advice)
        print(page([*findings, hung]), flush=True)
        sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        for check in checks:
            running[0] = check.name
            findings += _answers(check)
            if any(f.fatal and f.status == Status.FAIL for f in findings):
                break
    finally:
        timer.cancel()
    return findings


def _answers(check: Check) -> Iterator[Finding]:
    try:
        yield from check.look()
    except UserError as error:
        yield Finding(check.name, Status.FAIL, str(error))
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        yield Finding(
            check.name, Status.FAIL, f"{type(error).__name__}: {text}", "the check itself did not get through"
        )


def merge(findings: list[Finding]) -> list[Finding]:
    """The worst of every line over all processes, which must all call it."""
    if jax.process_count() == 1:
        return findings
    everyone = [[_read(x) for x in json.loads(text)] for text in _gather(json.dumps([asdict(f) for f in findings]))]
    names = dict.fromkeys(f.name for found in everyone for f in found)
    return [_worst([(i, f) for i, found in enumerate(everyone) for f in found if f.name == name]) for name in names]


def _worst(lines: list[tuple[int, Finding]]) -> Finding:
    process, worst = max(lines, key=lambda line: line[1].status)
    others = {f.found: i for i, f in lines if f.found != worst.found}
    if worst.same and others:
        text = "; ".join(f"process {i}: {found}" for found, i in {worst.found: process, **others}.items())
        return replace(worst, status=Status.FAIL, found=text, advice="all processes need the same")
    return worst if not others else replace(worst, found=f"process {process}: {worst.found}")


def _read(found: dict) -> Finding:
    return Finding(**{**found, "status": Status(found["status"])})


def _gather(text: str) -> list[str]:
    """The texts of all processes."""
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(data)))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:n].tobytes().decode() for row, n in zip(rows, sizes, strict=True)]


def page(findings: Sequence[Finding]) -> str:
    """One line a finding, and beneath it what to do."""
    lines = []
    for f in findings:
        lines.append(f"{f.status.name:<5} {f.name:<{_WIDTH}} {f.found}")
        if f.advice and f.status != Status.OK:
            lines.append(f"{'':5} {'':{_WIDTH}} -> {f.advice}")
    counts = ", ".join(f"{sum(f.status == s for f in findings)} {s.name}" for s in Status)
    return "\n".join([*lines, counts])
