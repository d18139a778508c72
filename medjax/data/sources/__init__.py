"""Archives and generators as lists of studies; the builder turns them into records."""

from medjax.data.sources.base import Schema, Source, Study
from medjax.data.sources.medmnist import MedMNIST
from medjax.data.sources.phantom import Phantom
from medjax.data.sources.ptbxl import PTBXL
from medjax.data.sources.table import Columns, Table

__all__ = ["PTBXL", "Columns", "MedMNIST", "Phantom", "Schema", "Source", "Study", "Table"]
