"""Trains a recipe: python -m medjax.bin.train --config=configs/phantom.py --config.data.dir=DATA --workdir=RUN."""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from medjax.bin import cli
from medjax.errors import UserError
from medjax.sharding import Processes
from medjax.training import loop

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe: configs/NAME.py[:argument,key=value].", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run that is there is gone on with.")
_STOP = flags.DEFINE_integer("stop_at_step", None, "Leave at this step, with a checkpoint, to go on later.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0; not needed on SLURM and TPU VMs.")
_COUNT = flags.DEFINE_integer("process_count", 0, "Number of processes, with --coordinator.")
_INDEX = flags.DEFINE_integer("process_index", -1, "Index of this process, with --coordinator.")


def main() -> None:
    """Joins the other processes, if any, and trains."""
    if _CONFIG.value is None or not _WORKDIR.value:
        raise UserError("pass --config=configs/NAME.py and --workdir=DIR")
    Processes(_COORDINATOR.value, _COUNT.value, _INDEX.value).start()
    loop.run(_CONFIG.value, Path(_WORKDIR.value), _STOP.value)


def run() -> None:
    """The console script."""
    jax.config.config_with_absl()
    cli.run(main)


if __name__ == "__main__":
    run()
