"""Trains a recipe: python -m medjax.bin.train --config=configs/phantom.py --config.data.dir=DATA --workdir=RUN."""

import traceback

import jax
from absl import flags
from ml_collections import config_flags

from medjax.bin import cli
from medjax.checkpoints import mirror
from medjax.errors import EXIT_PREEMPTED, UserError
from medjax.sharding import Processes
from medjax.training import exits, loop
from medjax.training.compilation import default_cache, keep_compiled
from medjax.training.preemption import EXIT_INTERRUPTED, Preempted

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe: configs/NAME.py[:argument,key=value].", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run that is there is gone on with.")
_STOP = flags.DEFINE_integer("stop_at_step", None, "Leave at this step, with a checkpoint, to go on later.")
_CACHE = flags.DEFINE_string(
    "compilation_cache", None, "Folder of compiled programs, which spares a restart the compilation; empty: none."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of process 0; auto on TPU VMs; not needed on SLURM, GKE."
)
_COUNT = flags.DEFINE_integer("process_count", 0, "Number of processes, with --coordinator.")
_INDEX = flags.DEFINE_integer("process_index", -1, "Index of this process, with --coordinator.")


def main() -> None:
    """Joins the other processes, if any, and trains."""
    if _CONFIG.value is None or not _WORKDIR.value:
        raise UserError("pass --config=configs/NAME.py and --workdir=DIR")
    keep_compiled(default_cache() if _CACHE.value is None else _CACHE.value)
    try:
        Processes(_COORDINATOR.value, _COUNT.value, _INDEX.value).start()
        with mirror.spooled(_WORKDIR.value, jax.process_index()) as workdir:
            loop.run(_CONFIG.value, workdir, _STOP.value)
    except UserError:
        raise
    except Preempted as left:
        _leave(left)
    except Exception as error:
        several = jax.distributed.is_initialized()
        code = exits.status(error, several)
        if code == 1 and not several:
            raise
        # The others wait in a collective, and a process that raised for them: each ends at once, with its message.
        cli.say(traceback.format_exc())
        cli.end(code)


def _leave(left: Preempted) -> None:
    cli.say(str(left))
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()  # together, since the end of the first process is an error to the others
    cli.end(EXIT_INTERRUPTED if left.interrupted else EXIT_PREEMPTED)


def run() -> None:
    """The console script."""
    jax.config.config_with_absl()
    cli.run(main)


if __name__ == "__main__":
    run()
