"""What checkpoints a run holds, and whether they are sound, without changing anything."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from etils import epath

from medjax.checkpoints import folders, integrity


@dataclass(frozen=True)
class Row:
    """One checkpoint. folder: that of its store, within the run. saved: local time, "?" where that cannot be read, as
    `examples` seen. wrong: what is damaged, None if nothing is.
    """

    folder: str
    step: int
    gib: float
    saved: str
    examples: Any
    wrong: str | None


def listed(run: epath.Path, names: Iterable[str], verify: bool) -> Iterator[Row]:
    """Those in the folders `names` of a run, each folder's oldest step first. verify: read every file; else only names
    and sizes are compared.
    """
    for name in names:
        for step in folders.steps(run / name):
            yield _row(name, run / name / str(step), verify)


def _row(name: str, folder: epath.Path, verify: bool) -> Row:
    wrong = (integrity.damage if verify else integrity.incomplete)(folder)
    try:
        files = integrity.fingerprint(folder)
    except OSError:
        files = ()
    gib = sum(size for _, (size, _) in files) / 2**30
    saved = _json(folder / "_CHECKPOINT_METADATA").get("commit_timestamp_nsecs")
    shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(saved / 1e9)) if isinstance(saved, int) else "?"
    examples = _json(folder / "meta" / "metadata").get("examples_seen", "?")
    return Row(name, int(folder.name), gib, shown, examples, wrong)


def _json(path: epath.Path) -> dict[str, Any]:
    """Empty where the file is damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
