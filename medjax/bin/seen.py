"""Which checkpoints have seen a patient or a study: python -m medjax.bin.seen --workdir=RUN --patient=ID.

Exact, not a guess: the order of training examples is a function of the seed, so every example a checkpoint was trained
on is known. Stages of the run and the runs it started from are listed too.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

from medjax.bin import cli, whom
from medjax.data import Dataset
from medjax.data.curation.exposure import find
from medjax.errors import UserError
from medjax.storage import local_path
from medjax.training.lineage import open_data, runs

_WORKDIR = flags.DEFINE_string("workdir", None, "The run.")


def main() -> None:
    """Prints where the records are, and a line for each checkpoint."""
    if not _WORKDIR.value:
        raise UserError("pass --workdir=RUN, the --workdir of medjax.bin.train")
    kind, names = whom.asked()
    for run in runs(local_path(_WORKDIR.value, "seen")):
        dataset, _ = open_data(run)
        ids = whom.hashes(names, dataset.manifest)
        print(f"{run}: {where(dataset, kind, ids)}")
        cli.print_table(*whom.seen_by(run, kind, ids))


def where(dataset: Dataset, kind: str, ids: Sequence[np.ndarray]) -> str:
    """In words, how many records of each split are meant."""
    counts = dict.fromkeys(dataset.manifest.splits, 0)
    for s in dataset.sets:
        for split, found in find(s.directory, s.manifest, kind, ids).items():
            counts[split] += len(found)
    said = ", ".join(f"{n} in the {split} split" for split, n in counts.items() if n)
    note = " (which chooses the best checkpoint)" if counts.get("validation") else ""
    return f"records of the {kind} asked for: {said}{note}" if said else f"the {kind} asked for is not in its data"


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
