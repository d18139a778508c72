"""The checkpoints of a run, sound or not: python -m medjax.bin.checkpoints --workdir=RUN [--verify].

Exit status 1 if any is damaged. Without --verify only names and sizes of files are compared, which a flipped bit
passes; with it every file is read. A save that a running program has not finished shows as damaged until it is sealed.
Nothing is changed or moved.
"""

import logging
import sys

from absl import flags
from etils import epath

from medjax.bin import cli
from medjax.checkpoints.listing import listed
from medjax.errors import UserError
from medjax.methods.encoder import CONFIG, FOLDERS
from medjax.storage import as_path

_WORKDIR = flags.DEFINE_string("workdir", None, "The run, of which stages are listed too.")
_VERIFY = flags.DEFINE_bool("verify", False, "Read every file and compare it with its checksum.")


def main() -> None:
    """Prints the table."""
    if not _WORKDIR.value:
        raise UserError("pass --workdir=RUN, the --workdir of medjax.bin.train")
    run = epath.Path(as_path(_WORKDIR.value))
    if not (run / CONFIG).exists():
        raise UserError(f"no run at {run}: {CONFIG} is missing; give the --workdir of medjax.bin.train")
    if _VERIFY.value:
        logging.basicConfig(format="%(message)s")  # how far it has come
        logging.getLogger("medjax").setLevel(logging.INFO)
    stages = sorted(p.name for p in (run / "stages").iterdir()) if (run / "stages").exists() else []
    names = [f"{at}{name}" for at in (*(f"stages/{s}/" for s in stages), "") for name in FOLDERS.values()]
    found = list(listed(run, names, _VERIFY.value))
    fine = "sound" if _VERIFY.value else "complete, not verified"
    header = ("folder", "step", "GiB", "saved", "examples seen", "state")
    cli.print_table(header, [(r.folder, r.step, f"{r.gib:.2f}", r.saved, r.examples, r.wrong or fine) for r in found])
    damaged = sum(r.wrong is not None for r in found)
    print(f"{len(found)} checkpoints, {damaged} of them damaged")
    if damaged:
        sys.exit(1)


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
