"""Measures medjax beside what users would pick instead: python -m medjax.bin.benchmark --suite=losses [--json].

Time is the median of a value-and-gradient, memory the largest resident set above its level before the first call, each
contestant in a process of its own. Only ratios within one run compare: the figures themselves are of this machine, as
busy as it is now.
"""

import json
import sys

from absl import flags

from medjax.benchmarks import losses, process
from medjax.bin import cli
from medjax.errors import UserError

_SUITE = flags.DEFINE_string("suite", "losses", "What to measure: losses.")
_ONLY = flags.DEFINE_list("only", [], "Names of comparisons; default: all of the suite.")
_ROWS = flags.DEFINE_integer("rows", 0, "Batch size in place of each comparison's own.")
_WIDTH = flags.DEFINE_integer("width", 0, "Width of the embeddings in place of 512.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object as the last line.")


def main() -> None:
    """Runs the suite and prints its table."""
    if _SUITE.value != "losses":
        raise UserError(f"unknown --suite={_SUITE.value}; there is: losses")
    if _ROWS.value < 0 or _WIDTH.value < 0:
        raise UserError("--rows and --width must be positive")
    picked = losses.chosen(_ONLY.value, _ROWS.value or None, _WIDTH.value or None)
    rows = [losses.compare(c, lambda line: print(line, file=sys.stderr)) for c in picked]
    print(f"machine: {process.machine()}")
    cli.print_table(
        ("objective", "size", "contestant", "seconds", "peak MB", "loss", "times faster", "memory ratio"),
        [line for row in rows for line in _lines(row)],
    )
    if _JSON.value:
        print(json.dumps({"machine": process.machine(), "suite": _SUITE.value, "rows": rows}))


def _lines(row: dict) -> list[tuple]:
    size = f"B={row['rows']} M={row['modalities']} E={row['width']}"
    out = []
    for side in ("ours", "theirs"):
        found = row[side]
        if "missing" in found:
            out.append((row["name"], size, found["contestant"], found["missing"], "", "", "", ""))
            continue
        figures = (f"{found['seconds']:.3f}", f"{found['peak_bytes'] / 1e6:.0f}", f"{found['loss']:.6f}")
        ratios = (f"{row['times_faster']:.1f}", f"{row['memory_ratio']:.1f}") if "times_faster" in row else ("", "")
        out.append((row["name"], size, found["contestant"], *figures, *(ratios if side == "ours" else ("", ""))))
    return out


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
