"""Measures medjax beside what users would pick instead: python -m medjax.bin.benchmark --suite=losses [--json];
with --suite=encoders, forward passes and training steps beside the same architecture in PyTorch; with
--suite=switches, what every switch between a paper and its released code changes in a small training; with
--suite=step, a whole training step beside open_clip's, and two processes beside one; with
--suite=data, pictures a second beside a torch DataLoader, and how much of two recipes is waiting for data.

Time is the median of a call, of losses a value-and-gradient, memory the largest resident set above its level before
the first call, each contestant in a process of its own. Only ratios within one run compare: the figures themselves are
of this machine, as busy as it is now.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from absl import flags

from medjax.benchmarks import data, encoders, losses, process, step, switches
from medjax.bin import cli
from medjax.errors import UserError, check_choice

_SUITE = flags.DEFINE_string("suite", "losses", "What to measure: losses, encoders, step, switches or data.")
_ONLY = flags.DEFINE_list("only", [], "Names of comparisons; default: all of the suite.")
_ROWS = flags.DEFINE_integer("rows", 0, "Batch size in place of each comparison's own.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Computation of --suite=encoders and step.")
_CALLS = flags.DEFINE_integer(
    "calls", 5, "Calls of each contestant of --suite=encoders and step, after the first, which compiles."
)
_WIDTH = flags.DEFINE_integer("width", 0, "Width of the embeddings in place of 512.")
_STEPS = flags.DEFINE_integer("steps", 150, "Length of the trainings of --suite=switches.")
_DATA = flags.DEFINE_string("data", "", "Data set built from PTB-XL, for the recipe ptbxl of --suite=data.")
_BATCHES = flags.DEFINE_integer("batches", 8, "Batches a call of --suite=data.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object as the last line.")


def main() -> None:
    """Runs the suite and prints its table."""
    check_choice("--suite", _SUITE.value, ("losses", "encoders", "step", "switches", "data"))
    if _ROWS.value < 0 or _WIDTH.value < 0 or _STEPS.value < 1 or min(_CALLS.value, _BATCHES.value) < 1:
        raise UserError("--rows, --width, --steps, --calls and --batches must be positive")
    suites = {"losses": _losses, "encoders": _encoders, "step": _step, "switches": _switches, "data": _data}
    rows = suites[_SUITE.value]()
    if _JSON.value:
        print(json.dumps({"machine": process.machine(), "suite": _SUITE.value, "rows": rows}))


def _losses() -> list[dict]:
    picked = losses.chosen(_ONLY.value, _ROWS.value or None, _WIDTH.value or None)
    rows = [losses.compare(c, lambda line: print(line, file=sys.stderr)) for c in picked]
    print(f"machine: {process.machine()}")
    cli.print_table(
        ("objective", "size", "contestant", "seconds", "peak MB", "loss", "times faster", "memory ratio"),
        [line for row in rows for line in _lines(row)],
    )
    return rows


def _encoders() -> list[dict]:
    rows = []
    for encoder in encoders.chosen(_ONLY.value, _ROWS.value or None):
        report = partial(print, file=sys.stderr)
        rows += encoders.compare(encoder, _DTYPE.value, _CALLS.value, report)
    print(f"machine: {process.machine()}")
    cli.print_table(
        (
            "encoder",
            "batch",
            "",
            "medjax s",
            "PyTorch s",
            "times faster",
            "of the matrix product's rate",
            "loss differs",
        ),
        [
            (
                row["name"],
                row["rows"],
                f"{row['what']}, {row['dtype']}",
                *(f"{row[s]['seconds']:.3f}" if "seconds" in row[s] else row[s]["missing"] for s in ("ours", "theirs")),
                f"{row['times_faster']:.2f}" if "times_faster" in row else "",
                f"{row['share']:.0%}" if "share" in row else "",
                f"{row['loss_difference']:.0e}" if "loss_difference" in row else "",
            )
            for row in rows
        ],
    )
    return rows


def _step() -> list[dict]:
    report = partial(print, file=sys.stderr)
    picked = step.chosen(_ONLY.value, _ROWS.value or None)
    rows = [step.compare(p, _DTYPE.value, _CALLS.value, report) for p in picked]
    print(f"machine: {process.machine()}")
    cli.print_table(step.HEADER, [step.line(row) for row in rows])
    return rows


def _switches() -> list[dict]:
    picked = switches.chosen(_ONLY.value)
    with tempfile.TemporaryDirectory() as folder:
        effects = list(switches.measure(Path(folder), _STEPS.value, picked))
    cli.print_table(
        ("objective", "ours | other", "zero-shot AUROC", "gain of the other", "recall@10", "gain of the other"),
        [
            (
                e.switch.objective,
                e.switch.name,
                f"{e.ours.auroc.value:.3f} | {e.other.auroc.value:.3f}",
                e.auroc_gain,
                f"{e.ours.recall.value:.3f} | {e.other.recall.value:.3f}",
                e.recall_gain,
            )
            for e in effects
        ],
    )
    return [e.as_dict() for e in effects]


def _data() -> list[dict]:
    contests, recipes = data.chosen(_ONLY.value)
    rows = list(data.compare(contests, _BATCHES.value, partial(print, file=sys.stderr))) if contests else []
    print(f"machine: {process.machine()}")
    columns = ("images_per_second", 1, ".0f"), ("peak_bytes", 1e6, ".0f"), ("worker_bytes", 1e6, ".0f")
    table = [
        (
            row["name"],
            *(
                row[side]["missing"] if "missing" in row[side] else format(row[side][name] / unit, how)
                for name, unit, how in columns
                for side in ("ours", "theirs")
            ),
            f"{row['times_faster']:.2f}" if "times_faster" in row else "",
            row["target"],
        )
        for row in rows
    ]
    sides = (f"{side} {what}" for what in ("images/s", "peak MB", "worker MB") for side in ("medjax", "torch"))
    cli.print_table(("reads", *sides, "times as fast", "target"), table)
    waits = [data.waiting(recipe, data.STEPS, _DATA.value if recipe == "ptbxl" else "") for recipe in recipes]
    cli.print_table(
        ("recipe", "waits for data", "examples/s"),
        [
            (w["name"], w.get("missing") or f"{w['data_wait']:.1%}", f"{w.get('examples_per_second', 0):.0f}")
            for w in waits
        ],
    )
    return [*rows, *waits]


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
