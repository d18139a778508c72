"""Finds results.json files, checks them, and says whose they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjax.errors import UserError
from medjax.evaluation.schema import check_results

FILE = "results.json"
HEAD = ("medjax", "subject", "checkpoint", "data", "intervals")


@dataclass(frozen=True)
class Evaluation:
    """One results.json. name: of its folder, below the place where it was looked for. content: what it holds."""

    name: str
    path: Path
    content: Mapping[str, Any]

    @property
    def data(self) -> Mapping[str, Any]:
        """What the head says of the data."""
        return self.content["data"]

    @property
    def model(self) -> str:
        """Subject and checkpoint in words."""
        name, checkpoint = self.content["subject"]["name"], self.content["checkpoint"]
        if not checkpoint:
            return name
        step = "" if checkpoint["step"] is None else f", step {checkpoint['step']}"
        weights = "" if checkpoint["weights"] == "raw" else f", {checkpoint['weights']}"
        return f"{name} ({checkpoint['name']}{step}{weights})"

    @property
    def measured(self) -> Mapping[str, Any]:
        """Everything below the head, without controls."""
        return {k: v for k, v in self.content.items() if k not in (*HEAD, "controls")}


def gather_run(workdir: Path) -> list[Evaluation]:
    """Every evaluation below `workdir`/evaluation, sorted by name; none where nothing was evaluated."""
    return _below(workdir / "evaluation")


def gather(places: Sequence[str | Path]) -> list[Evaluation]:
    """The results of files, and of folders with everything below them; a file named twice counts once.

    Raises:
      UserError: a place is missing, a folder holds no results, or a file does not follow the format; names it.
    """
    found: dict[Path, Evaluation] = {}
    for place in map(Path, places):
        if place.is_file():
            more = [_read(place, place.absolute().parent.name)]
        elif place.is_dir():
            more = _below(place)
        else:
            raise UserError(f"no results at {place}; name a {FILE} or a folder that holds one")
        if not more:
            raise UserError(f"{place} holds no {FILE}; evaluate first, for example with medjax.bin.evaluate_zero_shot")
        for e in more:
            found.setdefault(e.path.resolve(), e)
    return list(found.values())


def _below(folder: Path) -> list[Evaluation]:
    paths = sorted(folder.rglob(FILE))
    return [_read(p, str(p.parent.relative_to(folder)) if p.parent != folder else folder.name) for p in paths]


def _read(path: Path, name: str) -> Evaluation:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    check_results(content, str(path))
    return Evaluation(name, path, content)
