"""Whether there is room for the next checkpoint, before hours are spent on what cannot be kept."""

import shutil
from pathlib import Path
from typing import Any

import jax

from medjax.checkpoints.mirror import place
from medjax.errors import StorageError, UserError
from medjax.storage import is_remote

_MORE = 1.1  # checkpoints are compressed, but have metadata
_LEAST = 2**24  # bytes


def state_bytes(tree: Any) -> int:
    """Of all leaves, arrays or their shapes, on all devices together."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def check_room(folder: Path, size: int, what: str, error: type[UserError] = StorageError) -> None:
    """Raises an error where fewer bytes are free than a checkpoint of `size` bytes takes; object stores have room."""
    if is_remote(place(folder)):
        return
    needed, free = int(size * _MORE) + _LEAST, shutil.disk_usage(folder).free
    if free < needed:
        raise error(
            f"{what} needs {needed / 2**20:.0f} MiB in {folder}, and {free / 2**20:.0f} MiB are free; make room (what "
            "is saved stays), and run the same command again"
        )
