"""Devices: the mesh, where parameters and batches lie on it, and several processes."""

from medjax.sharding.mesh import (
    BATCH_AXES,
    MeshConfig,
    batch_sharding,
    current_batch_axes,
    data_share,
    make_mesh,
    replicated,
    to_global,
)
from medjax.sharding.processes import Processes, is_main, sum_over_processes
from medjax.sharding.rules import ACTIVATION_RULES, parameter_shardings
from medjax.sharding.table import Held, describe, held

__all__ = [
    "ACTIVATION_RULES",
    "BATCH_AXES",
    "Held",
    "MeshConfig",
    "Processes",
    "batch_sharding",
    "current_batch_axes",
    "data_share",
    "describe",
    "held",
    "is_main",
    "make_mesh",
    "parameter_shardings",
    "replicated",
    "sum_over_processes",
    "to_global",
]
