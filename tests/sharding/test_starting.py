"""Who is asked for the other processes, from what the environment says."""

import jax
import pytest

from medjax.errors import UserError
from medjax.sharding import Processes

NAMES = (
    "SLURM_JOB_ID",
    "SLURM_NTASKS",
    "OMPI_COMM_WORLD_SIZE",
    "TPU_WORKER_HOSTNAMES",
    "MEGASCALE_COORDINATOR_ADDRESS",
)


@pytest.mark.parametrize(
    ("environment", "coordinator", "asked"),
    [
        ({}, "", False),
        ({}, "auto", True),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, "", True),
        ({"SLURM_JOB_ID": "1"}, "", False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "", True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "", False),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_COORDINATOR_ADDRESS": "a"}, "", True),
    ],
    ids=["alone", "auto", "slurm", "shell_on_slurm", "pod", "one_host", "slices_of_one_host"],
)
def test_the_cluster_is_asked_where_there_is_one(monkeypatch, environment, coordinator, asked):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *place, **_: calls.append(place))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Processes(coordinator).start()
    assert calls == ([()] if asked else [])


def test_a_coordinator_needs_a_place_among_the_others():
    with pytest.raises(UserError, match="--process_count and --process_index"):
        Processes("host:1", 2, 2).start()
