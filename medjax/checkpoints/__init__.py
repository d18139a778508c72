"""Saving and restoring, with the promise that a damaged checkpoint is never trained on."""

from medjax.checkpoints.store import CheckpointStore

__all__ = ["CheckpointStore"]
