"""Contrastive losses beside what users would pick instead: the same inputs, each contestant in its own process."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from medjax.benchmarks import contestants
from medjax.benchmarks.process import Result, measure
from medjax.errors import UserError, suggest


@dataclass(frozen=True)
class Comparison:
    """One objective of medjax against one other implementation, at one size.

    ours, theirs: names in `medjax.benchmarks.contestants.CONTESTANTS`. rows: the batch. calls: after the first, which
    compiles.
    """

    name: str
    ours: str
    theirs: str
    rows: int
    modalities: int
    width: int = 512
    calls: int = 5


SUITE = (
    Comparison("info_nce", "medjax info_nce", "open_clip ClipLoss", 4096, 2),
    Comparison("sigmoid", "medjax sigmoid", "open_clip SigLipLoss", 4096, 2),
    Comparison("gram", "medjax gram", "torch.det grids, as GRAM", 2048, 4, calls=3),
    Comparison("symile", "medjax symile n_squared", "symile package n_squared", 400, 3, calls=3),
)


def chosen(only: list[str], rows: int | None = None, width: int | None = None) -> list[Comparison]:
    """The comparisons named in `only`, all if it is empty, at another size if one is given.

    Raises:
      UserError: an unknown name.
    """
    known = [c.name for c in SUITE]
    for name in only:
        if name not in known:
            raise UserError(f"--only names the unknown comparison {name!r}; {suggest(name, known)}")
    picked = [c for c in SUITE if not only or c.name in only]
    return [replace(c, rows=rows or c.rows, width=width or c.width) for c in picked]


def compare(c: Comparison, report: Callable[[str], None] = lambda line: None) -> dict:
    """Measures both contestants in turn.

    Returns a row of the table: the name and size, and of each side the result or, under `missing`, why there is none.
    `times_faster` and `memory_ratio` (theirs over ours) are there where both ran.
    """
    row: dict = {"name": c.name, "rows": c.rows, "modalities": c.modalities, "width": c.width}
    results: dict[str, Result] = {}
    for side, name in (("ours", c.ours), ("theirs", c.theirs)):
        report(f"{c.name}: {name} ...")
        row[side] = {"contestant": name}
        result = measure(partial(contestants.make, name, c.rows, c.modalities, c.width), c.calls)
        if isinstance(result, str):
            row[side]["missing"] = result
        else:
            results[side] = result
            row[side] |= result._asdict()
    if len(results) == 2:
        ours, theirs = results["ours"], results["theirs"]
        row["times_faster"] = theirs.seconds / ours.seconds
        row["memory_ratio"] = theirs.peak_bytes / max(ours.peak_bytes, 1)
        row["loss_difference"] = abs(theirs.loss - ours.loss) / max(abs(theirs.loss), 1e-30)
    return row
