"""Devices: the mesh, where parameters and batches lie on it, and several processes."""

from medjax.sharding.mesh import (
    BATCH_AXES,
    MeshConfig,
    batch_sharding,
    current_batch_axes,
    make_mesh,
    replicated,
    to_global,
)
from medjax.sharding.processes import Processes, is_main, sum_over_processes
from medjax.sharding.rules import ACTIVATION_RULES, describe, parameter_shardings

__all__ = [
    "ACTIVATION_RULES",
    "BATCH_AXES",
    "MeshConfig",
    "Processes",
    "batch_sharding",
    "current_batch_axes",
    "describe",
    "is_main",
    "make_mesh",
    "parameter_shardings",
    "replicated",
    "sum_over_processes",
    "to_global",
]
