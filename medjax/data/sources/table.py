"""A generic table: one row a study, its columns naming image and ECG files, texts, numbers, labels and the patient."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medjax.config import build
from medjax.data.manifest import Finding, Modality
from medjax.data.readers.image import read_encoded
from medjax.data.readers.table import binary, check_columns, number, read_csv
from medjax.data.readers.wfdb import LEADS, read_ecg
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.errors import UserError, suggest

_SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. Several columns of a modality become its items (views, report sections)."""

    image: tuple[str, ...] = ()
    ecg: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    patient: str = ""
    example: str = ""
    split: str = ""
    time: str = ""

    def all(self) -> list[str]:
        """Every column that is named."""
        single = [c for c in (self.patient, self.example, self.split, self.time) if c]
        return [*self.image, *self.ecg, *self.text, *self.numeric, *self.label, *single]


@dataclass(frozen=True)
class Table:
    """A CSV file as a source; file names in it are relative to its folder.

    An empty cell is a missing item or value. ECG columns name WFDB records without their ending. Without a patient
    column every row counts as a patient of its own. prompts: a JSON file `{label: {"positive": [...], "negative":
    [...]}}` for zero-shot evaluation.
    """

    path: Path
    columns: Columns
    name: str
    licence: str
    ecg_rate: float = 100.0
    prompts: str = ""
    sensitive: bool = True

    @property
    def schema(self) -> Schema:
        """The modalities whose columns are named."""
        c = self.columns
        modalities = {
            "image": Modality("image") if c.image else None,
            "ecg": Modality("ecg", LEADS, ("mV",) * len(LEADS), self.ecg_rate) if c.ecg else None,
            "labs": Modality("labs", c.numeric, ("",) * len(c.numeric)) if c.numeric else None,
            "text": Modality("text") if c.text else None,
        }
        notes = () if c.patient else ("No patient ids: every example counts as a patient of its own.",)
        return Schema(
            name=self.name,
            source=f"table with columns {', '.join(c.all())}",
            licence=self.licence,
            modalities={m: x for m, x in modalities.items() if x},
            labels=c.label,
            findings=read_prompts(self.prompts, c.label),
            sensitive=self.sensitive,
            patients_known=bool(c.patient),
            notes=notes,
        )

    def studies(self) -> Sequence[Study]:
        """One study a row."""
        rows = read_csv(self.path)
        check_columns(rows, self.columns.all(), self.path)
        if not self.schema.modalities:
            raise UserError(
                "a table needs at least one of --image_columns, --ecg_columns, --text_columns, --numeric_columns"
            )
        return [self._study(i, row) for i, row in enumerate(rows)]

    def _study(self, i: int, row: dict[str, str]) -> Study:
        c = self.columns
        name = row[c.example] if c.example else f"row {i + 2}"
        patient = row[c.patient].strip() if c.patient else name
        split = row[c.split].strip().lower() if c.split else None
        split = _SPLIT_NAMES.get(split, split)
        return Study(name, patient, split, partial(self._read, name, patient, row))

    def _read(self, name: str, patient: str, row: dict[str, str]) -> Example:
        c, folder = self.columns, self.path.parent
        if not patient:
            raise UserError(f"column {c.patient!r} is empty; name the patient or drop the row")
        items = {
            "image": [read_encoded(_inside(folder, row[k])) for k in c.image if row[k].strip()],
            "ecg": [read_ecg(_inside(folder, row[k]), self.ecg_rate) for k in c.ecg if row[k].strip()],
            "text": [encode_text(row[k].strip()) for k in c.text if row[k].strip()],
        }
        values = np.array([number(row[k], k) for k in c.numeric], np.float32)
        if np.any(~np.isnan(values)):
            items["labs"] = [values]
        items = {m: x for m, x in items.items() if x}
        if not items:
            raise UserError("the row is empty: no image, ECG, text or number")
        return Example(
            example_id=name,
            patient_id=patient,
            items=items,
            time=number(row[c.time], c.time) if c.time else 0.0,
            labels={k: binary(row[k], k) for k in c.label},
        )


def read_prompts(path: str, labels: Sequence[str]) -> dict[str, Finding]:
    """Findings from a JSON file of prompts.

    Raises:
      UserError: the file is missing or no JSON, or names a label that the data set does not have.
    """
    if not path:
        return {}
    if not Path(path).is_file():
        raise UserError(f"prompt file {path} does not exist")
    try:
        raw = json.loads(Path(path).read_text())
    except ValueError as error:
        raise UserError(f"prompt file {path} is not JSON: {error}") from None
    for label in raw:
        if label not in labels:
            raise UserError(f"prompt file {path} asks for {label!r}, which is no label; {suggest(label, labels)}")
    findings = {label: build(Finding, finding, f"{path}:{label}") for label, finding in raw.items()}
    for label, finding in findings.items():
        if not finding.positive or not finding.negative:
            raise UserError(
                f"prompt file {path} needs a positive and a negative prompt for {label!r}; one list is empty"
            )
    return findings


def _inside(folder: Path, name: str) -> Path:
    """The file, which must lie in the table's folder."""
    path = (folder / name.strip()).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"file {name.strip()!r} lies outside the folder of the table; move it there")
    return path
