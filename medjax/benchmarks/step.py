"""A whole training step, of ViT and text transformer with InfoNCE and AdamW, beside open_clip's from the same weights;
and what it costs to be two processes instead of one.
"""

import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from medjax.benchmarks.process import Result, measure
from medjax.benchmarks.step_contestants import Pair, matrix_product, on_cpu, ours, theirs, write_weights
from medjax.errors import UserError, suggest

_DEVICES = 2


# vit_b16 is open_clip's ViT-B-16. What a process more costs is seen where steps are short.
SUITE = (
    Pair("vit_s16", (384, 12, 6), (384, 12, 6), 16),
    Pair("vit_b16", (768, 12, 12), (512, 12, 8), 16),
)
PROCESSES = Pair("processes", (128, 4, 4), (128, 4, 4), 32, size=64, tokens=32, vocabulary=4096, embed_dim=128)
DEFAULT = ("vit_s16", PROCESSES.name)
HEADER = (
    *("pair", "batch", "", "seconds a step", "against", "times faster", "memory ratio"),
    *("MFU", "of the matrix product's rate", "loss differs"),
)


def chosen(only: list[str], rows: int | None = None) -> list[Pair]:
    """The pairs named in `only`, `DEFAULT` if it is empty, with another batch if one is given.

    Raises:
      UserError: an unknown name.
    """
    pairs = (*SUITE, PROCESSES)
    known = [p.name for p in pairs]
    for name in only:
        if name not in known:
            raise UserError(f"--only names the unknown pair {name!r}; {suggest(name, known)}")
    return [replace(p, rows=rows or p.rows) for p in pairs if p.name in (only or DEFAULT)]


def compare(p: Pair, dtype: str, calls: int, report: Callable[[str], None] = lambda line: None) -> dict:
    """Measures both contestants in turn; dtype: of the towers' computation, float32 or bfloat16.

    Returns a row of the table: of each side what was measured or, under `missing`, why nothing was; where both ran
    `times_faster`, `memory_ratio` (theirs over ours) and `loss_difference`, relative, after `calls` updates. `mfu` and
    `share`: our model FLOPs as a share of the data sheet's and of the rate at which the device multiplies large
    matrices in this run.
    """
    if p.name == PROCESSES.name:
        return _compare_processes(p, dtype, calls, report)
    row: dict = {"name": p.name, "rows": p.rows, "dtype": dtype}
    with tempfile.TemporaryDirectory() as folder:
        report(f"{p.name}: weights ...")
        write_weights(p, Path(folder))
        results = {}
        for side, make in (("ours", ours), ("theirs", theirs)):
            report(f"{p.name}: {side} ...")
            results[side] = measure(partial(make, folder, p, dtype), calls)
        rate = measure(partial(matrix_product, dtype), calls)
    row |= {side: _shown(result) for side, result in results.items()}
    mine, other = results["ours"], results["theirs"]
    if isinstance(mine, Result):
        speed = mine.facts["flops"] / mine.seconds
        if isinstance(rate, Result):
            row["share"] = speed / (rate.facts["flops"] / rate.seconds)
        if mine.facts["peak"]:
            row["mfu"] = speed / mine.facts["peak"]
        if isinstance(other, Result):
            row |= _ratios(mine, other)
    return row


def _compare_processes(p: Pair, dtype: str, calls: int, report: Callable[[str], None]) -> dict:
    """Two processes ("ours") beside one with as many devices ("theirs"), on CPU."""
    with tempfile.TemporaryDirectory() as folder:
        write_weights(p, Path(folder))
        report(f"{p.name}: one ...")
        one = measure(partial(on_cpu, folder, p, dtype, _DEVICES, None), calls)
        report(f"{p.name}: two ...")
        address = f"localhost:{_free_port()}"
        places = [(address, 2, i) for i in range(2)]
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(measure, partial(on_cpu, folder, p, dtype, _DEVICES // 2, x), calls) for x in places]
            first, second = (x.result() for x in waiting)
    two = first
    if isinstance(first, Result) and isinstance(second, Result):
        two = first._replace(peak_bytes=first.peak_bytes + second.peak_bytes)
    row: dict = {"name": p.name, "rows": p.rows, "dtype": dtype, "ours": _shown(two), "theirs": _shown(one)}
    return row | (_ratios(two, one) if isinstance(two, Result) and isinstance(one, Result) else {})


def line(row: dict) -> tuple[str, ...]:
    """A row of the table under `HEADER`."""
    several = row["name"] == PROCESSES.name
    sides = ("two processes", "one") if several else ("medjax", "open_clip")
    seconds = (
        f"{name} {row[side]['seconds']:.3f}" if "seconds" in row[side] else f"{name}: {row[side]['missing']}"
        for name, side in zip(sides, ("ours", "theirs"), strict=True)
    )
    figures = (("times_faster", ".2f"), ("memory_ratio", ".2f"), ("mfu", ".0%"), ("share", ".0%"))
    shown = (format(row[key], how) if key in row else "" for key, how in (*figures, ("loss_difference", ".0e")))
    return (row["name"], str(row["rows"]), row["dtype"], *seconds, *shown)


def _shown(result: Result | str) -> dict:
    return {"missing": result} if isinstance(result, str) else result._asdict()


def _ratios(mine: Result, other: Result) -> dict[str, float]:
    return {
        "times_faster": other.seconds / mine.seconds,
        "memory_ratio": _memory(other) / max(_memory(mine), 1),
        "loss_difference": abs(mine.loss / other.loss - 1),
    }


def _memory(result: Result) -> int:
    """Of the device where it tells, else of the process."""
    return (result.facts or {}).get("device_peak") or result.peak_bytes


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]
