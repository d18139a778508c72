"""Records of steps that are done again are taken back, so that none stands twice."""

import json
from pathlib import Path

from medjax.training.guards import SKIPPED


def rewind(workdir: Path, step: int, evaluates: bool) -> None:
    """Takes back what the records of a run say of steps after `step`, from which it goes on.

    evaluates: the run begins with the evaluation of that step.
    """
    drop_after(workdir / "metrics.jsonl", step, "validation/" if evaluates else "")
    drop_after(workdir / SKIPPED, step)


def drop_after(path: Path, step: int, without: str = "") -> None:
    """Leaves only those JSON lines of a file whose "step" is at most `step`; a line cut short by a kill goes, too.

    without: the beginning of a key that lines of `step` itself lose their place with.
    """
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _stays(line, step, without)]
    if len(kept) == len(lines):
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("".join(kept))
    partial.replace(path)


def _stays(line: str, step: int, without: str) -> bool:
    try:
        row = json.loads(line)
        again = row["step"] == step and without and any(key.startswith(without) for key in row)
        return row["step"] <= step and not again
    except (ValueError, KeyError, TypeError):
        return False
