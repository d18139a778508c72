"""Archives and generators as lists of studies; the builder turns them into records."""

from medjax.data.sources.base import Schema, Source, Study
from medjax.data.sources.chexpert import CheXpert
from medjax.data.sources.ct_rate import CtRate
from medjax.data.sources.decathlon import Decathlon
from medjax.data.sources.folders import Folders
from medjax.data.sources.medmnist import MedMNIST
from medjax.data.sources.mimic import Mimic
from medjax.data.sources.openi import OpenI
from medjax.data.sources.phantom import Phantom
from medjax.data.sources.ptbxl import PTBXL
from medjax.data.sources.roco import Roco
from medjax.data.sources.symile_mimic import SymileMimic
from medjax.data.sources.table import Columns, Table
from medjax.data.sources.tfds import Tfds
from medjax.data.sources.webdataset import WebDataset

__all__ = [
    "PTBXL",
    "CheXpert",
    "Columns",
    "CtRate",
    "Decathlon",
    "Folders",
    "MedMNIST",
    "Mimic",
    "OpenI",
    "Phantom",
    "Roco",
    "Schema",
    "Source",
    "Study",
    "SymileMimic",
    "Table",
    "Tfds",
    "WebDataset",
]
