"""Two minutes on your own machines before a long run: python -m medjax.bin.doctor --workdir=RUN --config=configs/X.py.

One page: devices, versions, processes and clocks, memory, whether the objectives on this mesh are those of the
formulas, the speed of collectives and of matrix products, of the workdir and of reading data, and whether SIGTERM
arrives. Every line is OK, WARN or FAIL with what to do; the exit status is 1 if there is a FAIL. Start it in every
process as medjax.bin.train would be; the first one prints.
"""

import json
import os
import sys
import time
from functools import partial

import jax
from absl import flags
from ml_collections import config_flags

from medjax.bin import cli
from medjax.sharding import MeshConfig, Processes, is_main, make_mesh
from medjax.storage import as_path
from medjax.training.doctor import Check, Finding, Status, arithmetic, examine, machine, merge, network, page, storage
from medjax.training.experiment import Experiment, stages
from medjax.training.program import check_batch

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, for its mesh and its data: configs/NAME.py[:argument,key=value].", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder that the run will have; nothing stays in it.")
_JSON = flags.DEFINE_string("json", "", "Also write the page here, as JSON.")
_SECONDS = flags.DEFINE_float("seconds", 120, "How long all of it may take before it counts as hung.", lower_bound=1)
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0; not needed on SLURM and TPU VMs.")
_COUNT = flags.DEFINE_integer("process_count", 0, "Number of processes, with --coordinator.")
_INDEX = flags.DEFINE_integer("process_index", -1, "Index of this process, with --coordinator.")


def main() -> None:
    """Prints the page, and leaves with 1 if anything fails."""
    started = time.monotonic()
    experiment = stages(_CONFIG.value)[-1][1] if _CONFIG.value is not None else None
    Processes(_COORDINATOR.value, _COUNT.value, _INDEX.value).start()
    findings = merge(examine(checks(experiment, _WORKDIR.value), _SECONDS.value))
    if is_main():
        print(f"{page(findings)}, {time.monotonic() - started:.0f} s")
        if _JSON.value:
            lines = [dict(name=f.name, status=f.status.name, found=f.found, advice=f.advice) for f in findings]
            as_path(_JSON.value).write_text(json.dumps(lines, indent=1) + "\n")
    sys.stdout.flush()
    if any(f.status == Status.FAIL for f in findings):
        os._exit(1)  # processes that failed otherwise than the others would wait for them


def checks(experiment: Experiment | None, workdir: str) -> list[Check]:
    """All that can be looked at, the quick and the local first."""
    found = [
        Check("threads of XLA", machine.threads),
        Check("devices", machine.devices),
        Check("packages", machine.packages),
        Check("memory", machine.memory),
        Check("SIGTERM", machine.sigterm),
        Check("processes", machine.processes),
    ]
    if workdir:
        found.append(Check("workdir", partial(storage.workdir, workdir)))
    mesh = partial(make_mesh, experiment.mesh if experiment else MeshConfig())
    found += [
        Check("collectives", lambda: network.collectives(mesh())),
        Check("objectives", lambda: arithmetic.objectives(mesh())),
        Check("matrix product", arithmetic.products),
    ]
    if experiment and experiment.data.dir:
        found.append(Check("recipe", lambda: recipe(experiment, mesh())))
        found.append(Check("reading data", partial(storage.reading, experiment)))
    return found


def recipe(experiment: Experiment, mesh: jax.sharding.Mesh) -> list[Finding]:
    """Whether the devices can share the recipe's batch."""
    check_batch(experiment, mesh)
    return [Finding("recipe", Status.OK, f"{dict(mesh.shape)} shares {experiment.data.batch_size} examples")]


def run() -> None:
    """The console script."""
    jax.config.config_with_absl()
    cli.run(main)


if __name__ == "__main__":
    run()
