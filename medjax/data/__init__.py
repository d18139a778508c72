"""Readers -> records -> transforms -> batches."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medjax.data.batch import Batch, Items
    from medjax.data.options import DataConfig
    from medjax.data.pipeline import Dataset

__all__ = ["Batch", "DataConfig", "Dataset", "Items"]
_HOME = {"Batch": "batch", "Items": "batch", "DataConfig": "options", "Dataset": "pipeline"}


def __getattr__(name: str) -> Any:
    """Imports the pipeline, and JAX with it, when it is asked for: the processes of a build need neither."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
