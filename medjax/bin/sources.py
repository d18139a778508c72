"""The sources that build_dataset knows, each a small function of its flags.

To add one: define its flags, and a function that makes the source, under `@source(name)`; in a file of its own where
there are many, which build_dataset then imports.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from medjax.data.readers.table import UNCERTAIN
from medjax.data.sources import PTBXL, Columns, Decathlon, Folders, MedMNIST, Phantom, Source, Table, Tfds, WebDataset
from medjax.errors import UserError

SOURCES: dict[str, Callable[[], Source]] = {}

_INPUT = flags.DEFINE_string(
    "input",
    "",
    "Folder of an archive, table, .npz file (medmnist), shards (webdataset: train-{000..127}.tar).",
)
RATE = flags.DEFINE_float("ecg_rate", 100.0, "ECG: samples per second in the records.")
PROMPTS = flags.DEFINE_string(
    "prompts", "", 'table: JSON {label: {"positive": [...], "negative": [...]}} for zero-shot.'
)
_PATIENTS = flags.DEFINE_integer("patients", 2000, "phantom: number of patients.")
_SIZE = flags.DEFINE_integer("image_size", 64, "phantom: pixels a side.")
_PHANTOM_SEED = flags.DEFINE_integer("seed", 0, "phantom: seed of everything.")
_DATASET = flags.DEFINE_string("dataset", "pneumoniamnist", "medmnist: which data set, for its captions.")
_NAME = flags.DEFINE_string("name", "", "table, folders, webdataset: name of the data set; default: the source's.")
_LICENCE = flags.DEFINE_string("licence", "unknown", "table, folders, webdataset, tfds: its licence.")
_SENSITIVE = flags.DEFINE_bool(
    "sensitive", True, "table, folders, webdataset, tfds: whether reports must show no pictures and no text."
)
_CLASSES = flags.DEFINE_list("classes", [], "webdataset: names of the classes that .cls members number from 0.")
_CAPTIONS = flags.DEFINE_string(
    "captions", "", 'folders: JSON {class: [caption, ...]}; "*" may hold templates with {} for the other classes.'
)
_PATTERN = flags.DEFINE_string(
    "patient_pattern", "", "folders: regular expression that finds the patient in a file's name; default: none."
)
_IMAGES = flags.DEFINE_list("image_columns", [], "table: columns with image files; several are views of one study.")
_ECGS = flags.DEFINE_list("ecg_columns", [], "table: columns with WFDB records, without their ending.")
_VOLUMES = flags.DEFINE_list("volume_columns", [], "table: columns with NIfTI or NRRD files, or DICOM series folders.")
_TEXTS = flags.DEFINE_list("text_columns", [], "table: columns with reports.")
_REPORTS = flags.DEFINE_list("report_columns", [], "table: columns with files of reports, read as further texts.")
_SECTIONS = flags.DEFINE_list("text_sections", [], "table: sections to keep of reports, such as findings,impression.")
UNCERTAIN_LABELS = flags.DEFINE_enum(
    "uncertain_labels",
    "refuse",
    [*UNCERTAIN, "mixed"],
    "What a label of -1 becomes; ignore: unknown; mixed, of chexpert, mimic, symile_mimic: 1 for --uncertain_ones.",
)
_OPTIONS = flags.DEFINE_string(
    "reader_options", "{}", 'table: JSON {reader: {option: value}}, such as {"nifti": {"unit": "HU"}}.'
)
_NUMBERS = flags.DEFINE_list("numeric_columns", [], "table: columns with lab values; empty cells are missing.")
_LABELS = flags.DEFINE_list("label_columns", [], "table: columns with 0, 1 or nothing.")
_PATIENT = flags.DEFINE_string("patient_column", "", "table: column with the patient; default: every row is one.")
_EXAMPLE = flags.DEFINE_string("id_column", "", "table: column that names the study.")
_SPLIT_COLUMN = flags.DEFINE_string("split_column", "", "table: column with train, validation (val) or test.")
_TIME = flags.DEFINE_string("time_column", "", "table: column with days, or with ISO dates.")
_IDENTIFIERS = flags.DEFINE_list(
    "identifier_columns", [], "table: columns with names, record numbers, dates of birth, to be taken out of its texts."
)
_ATTRIBUTES = flags.DEFINE_list(
    "attribute_columns", [], "table: columns to evaluate subgroups by, such as sex,age,site: numbers, or a few names."
)


def source(name: str) -> Callable[[Callable[[], Source]], Callable[[], Source]]:
    """Registers a function that makes a source of its flags, as --source=name."""

    def register(make: Callable[[], Source]) -> Callable[[], Source]:
        SOURCES[name] = make
        return make

    return register


def input_path(name: str) -> Path:
    """--input.

    Raises:
      UserError: it is not given.
    """
    if not _INPUT.value:
        raise UserError(f"--source={name} needs --input")
    return Path(_INPUT.value)


@source("phantom")
def _phantom() -> Source:
    return Phantom(_PATIENTS.value, _SIZE.value, _PHANTOM_SEED.value)


@source("ptbxl")
def _ptbxl() -> Source:
    return PTBXL(input_path("ptbxl"), RATE.value)


@source("medmnist")
def _medmnist() -> Source:
    return MedMNIST(input_path("medmnist"), _DATASET.value)


@source("table")
def _table() -> Source:
    described = (_NAME.value or "table", _LICENCE.value, RATE.value, PROMPTS.value, _SENSITIVE.value)
    more = (tuple(_SECTIONS.value), UNCERTAIN_LABELS.value, _reader_options())
    return Table(input_path("table"), _columns(), *described, *more)


@source("folders")
def _folders() -> Source:
    described = (_NAME.value or "folders", _LICENCE.value, _CAPTIONS.value, _PATTERN.value, _SENSITIVE.value)
    return Folders(input_path("folders"), *described)


@source("webdataset")
def _webdataset() -> Source:
    labels = (tuple(_CLASSES.value), UNCERTAIN_LABELS.value)
    shards, described = str(input_path("webdataset")), (_NAME.value or "webdataset", _LICENCE.value)
    return WebDataset(shards, *described, _columns(), *labels, _SENSITIVE.value)


@source("tfds")
def _tfds() -> Source:
    return Tfds(input_path("tfds"), _columns(), _LICENCE.value, RATE.value, _SENSITIVE.value)


def _columns() -> Columns:
    return Columns(
        image=tuple(_IMAGES.value),
        ecg=tuple(_ECGS.value),
        text=tuple(_TEXTS.value),
        numeric=tuple(_NUMBERS.value),
        volume=tuple(_VOLUMES.value),
        report=tuple(_REPORTS.value),
        label=tuple(_LABELS.value),
        patient=_PATIENT.value,
        example=_EXAMPLE.value,
        split=_SPLIT_COLUMN.value,
        time=_TIME.value,
        identifier=tuple(_IDENTIFIERS.value),
        attribute=tuple(_ATTRIBUTES.value),
    )


def _reader_options() -> dict[str, dict[str, Any]]:
    try:
        options = json.loads(_OPTIONS.value)
    except ValueError as error:
        raise UserError(f"--reader_options is not JSON: {error}") from None
    if not isinstance(options, dict) or not all(isinstance(x, dict) for x in options.values()):
        raise UserError('--reader_options must be JSON such as {"nifti": {"unit": "HU"}}')
    return options


@source("decathlon")
def _decathlon() -> Source:
    return Decathlon(input_path("decathlon"))
