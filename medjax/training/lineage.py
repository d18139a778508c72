"""Which checkpoints have seen a patient: of a run, its stages, and the runs that it started from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medjax.checkpoints import CheckpointStore
from medjax.config import build
from medjax.data import DataConfig, Dataset
from medjax.data import manifest as manifests
from medjax.data.curation.exposure import draws, find
from medjax.errors import UserError
from medjax.methods.encoder import CONFIG, FOLDERS


@dataclass(frozen=True)
class Exposure:
    """What one checkpoint has seen. folder: of the checkpoint. examples: how many it was trained on, repetitions
    counted. seen: at how many of them it was one of those asked for. first: the number of the first, counted from 1.
    """

    folder: Path
    step: int
    examples: int
    seen: int
    first: int | None


def runs(workdir: Path) -> list[Path]:
    """The run, its stages and the runs whose weights it started from, each once; the run itself first.

    Raises:
      UserError: there is no run, or one that another started from is gone.
    """
    out: list[Path] = []
    waiting = [workdir]
    while waiting:
        run = waiting.pop(0)
        if run in out:
            continue
        if not (run / CONFIG).is_file():
            raise UserError(f"no run at {run}: {CONFIG} is missing; it is needed to tell what was seen")
        out.append(run)
        start = json.loads((run / CONFIG).read_text()).get("warm_start", {}).get("dir", "")
        stages = sorted(p.parent for p in run.glob(f"stages/*/{CONFIG}"))
        waiting += [*stages, *([Path(start)] if start else [])]
    return out


def open_data(run: Path) -> tuple[Dataset, int]:
    """The data of a run and its seed.

    Raises:
      UserError: they are gone, or are no longer those that it was trained on.
    """
    config = json.loads((run / CONFIG).read_text())
    dataset = Dataset.open(build(DataConfig, config["data"], f"{run / CONFIG}: data"))
    if manifests.read(run).digest() != dataset.manifest.digest():
        raise UserError(
            f"the data of {run} have changed since it was trained: which record had which number is no longer known"
        )
    return dataset, config["seed"]


def exposures(run: Path, kind: str, ids: Sequence[np.ndarray]) -> Iterator[Exposure]:
    """One for each checkpoint that a run holds, best and latest.

    kind: "patient", "example" or "group"; ids: hashes, uint32[2] each.
    """
    dataset, seed = open_data(run)
    records, start = [], 0
    for s in dataset.sets:
        records += [start + i for i in find(s.directory, s.manifest, kind, ids)["train"]]
        start += s.manifest.splits["train"].examples
    stored = []
    for name in (FOLDERS["best"], FOLDERS["last"]):
        if (run / name).is_dir():
            store = CheckpointStore(run / name, read_only=True)
            stored += [(run / name / str(step), step, store.meta(step)["examples_seen"]) for step in store.steps()]
    longest = max((examples for *_, examples in stored), default=0)
    at = draws(dataset, seed, dataset.config.batch_size, records, longest)
    for folder, step, examples in stored:
        before = at[at < examples]
        yield Exposure(folder, step, examples, len(before), int(before[0]) + 1 if len(before) else None)
