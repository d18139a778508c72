"""Several processes: starting them up together, as one run."""

import os
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from medjax.errors import UserError

_CLUSTERS = ("SLURM_JOB_ID", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")

_HEARTBEAT = 60  # seconds; a process that is silent for longer is lost, and the others end


@dataclass(frozen=True)
class Processes:
    """How this process finds the others. coordinator: host:port of process 0; "auto" asks the cluster, which JAX knows
    of SLURM, Open MPI, TPU VMs and GKE; empty does so where the environment names one, and otherwise runs alone. (TPU
    VMs made with gcloud name none: their metadata server knows.)"""

    coordinator: str = ""
    count: int = 0
    index: int = -1

    def start(self) -> None:
        """Joins the others; must come before any other use of JAX.

        Raises:
          UserError: a coordinator without the number and index of processes.
        """
        if self.coordinator == "auto" or (not self.coordinator and _in_cluster()):
            jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT)
        elif self.coordinator:
            if self.count < 1 or not 0 <= self.index < self.count:
                raise UserError("--coordinator needs --process_count and --process_index in 0..count-1")
            place = {"num_processes": self.count, "process_id": self.index}
            jax.distributed.initialize(self.coordinator, **place, heartbeat_timeout_seconds=_HEARTBEAT)


def _in_cluster() -> bool:
    if "SLURM_JOB_ID" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if "MEGASCALE_COORDINATOR_ADDRESS" not in os.environ and "TPU_WORKER_HOSTNAMES" in os.environ:
        return "," in os.environ["TPU_WORKER_HOSTNAMES"]
    return any(name in os.environ for name in _CLUSTERS)


def is_main() -> bool:
    """Whether this process writes logs and reports."""
    return jax.process_index() == 0


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """The sum of int arrays (below 2^31) of all processes, which must call it together."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values.astype(np.int32))).sum(0)
