"""Takes patients out of a data set: python -m medjax.bin.forget --data=DATA --patient=ID[,ID] --runs=RUN[,RUN].

Rewrites the shards that hold them, and first lists which checkpoints of `--runs` were trained on them: those are not
changed, and what a network has learnt cannot be taken out of it, so train them again or withdraw them. Runs on the old
data set can no longer go on. The distributions of lab values and the tokenizer were made with the patients and stay.
"""

from absl import flags

from medjax.bin import cli, whom
from medjax.data import manifest as manifests
from medjax.data.building.rewrite import rewrite
from medjax.data.curation.exposure import find
from medjax.errors import UserError
from medjax.storage import local_path
from medjax.training.lineage import runs

_DATA = flags.DEFINE_string("data", None, "The data set.")
_RUNS = flags.DEFINE_list("runs", [], "Runs on it, to list the checkpoints that saw what is forgotten.")
_DRY = flags.DEFINE_bool("dry_run", False, "Only say what would be done.")


def main() -> None:
    """Lists the checkpoints, then rewrites the data set."""
    if not _DATA.value:
        raise UserError("pass --data=DIR, the data set")
    directory = local_path(_DATA.value, "forget")
    manifest = manifests.load(directory)
    kind, names = whom.asked()
    ids = whom.hashes(names, manifest)
    found = find(directory, manifest, kind, ids)
    if not any(found.values()):
        raise UserError(f"none of these is in {directory}; names are those of the source, and upper case matters")
    for workdir in dict.fromkeys(r for given in _RUNS.value for r in runs(local_path(given, "forget"))):
        cli.print_table(*whom.seen_by(workdir, kind, ids))
    if not _RUNS.value:
        print("no --runs were given: which checkpoints saw what is forgotten can afterwards no longer be told")
    counts = ", ".join(f"{len(at)} of {split}" for split, at in found.items() if at)
    if _DRY.value:
        print(f"would remove {counts} from {directory}")
        return
    at = {split: frozenset(numbers) for split, numbers in found.items()}
    note = "Patients were taken out after the build; lab distributions and the tokenizer were made with them."
    rewrite(directory, manifest, lambda split, i, record: None if i in at[split] else {}, note)
    print(f"removed {counts} from {directory}")


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
