"""Readers -> records -> transforms -> batches."""

from medjax.data.batch import Batch, Items
from medjax.data.pipeline import DataConfig, Dataset

__all__ = ["Batch", "DataConfig", "Dataset", "Items"]
