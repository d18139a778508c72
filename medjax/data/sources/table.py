"""A generic table: one row a study, its columns naming image and ECG files, texts, numbers, labels and the patient."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.config import build
from medjax.data.items import FileItem
from medjax.data.manifest import Finding, Modality
from medjax.data.privacy.days import are_dates, relative_days
from medjax.data.readers import READERS
from medjax.data.readers.leads import LEADS
from medjax.data.readers.report import choose, read_report
from medjax.data.readers.sniff import reader_for
from medjax.data.readers.table import UNCERTAIN, binary, number, read_table
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.errors import LayoutError, UserError, check_choice, suggest

_UNKNOWN = ("", "nan", "na", "none", "null")
_MOST_NAMES = 64  # of an attribute: a column with more is no attribute, and may name patients
_SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. Several columns of a modality become its items (views, report sections).

    image, ecg, volume and report name files; report files become items of the text, after those of the text columns.
    time: days, or dates, which become days since the patient's first study. identifier: names, record numbers, dates of
    birth and the like, which are taken out of the texts of their row and go nowhere else. attribute: what is known of
    patient or study beside (sex, age, view, site, device), to evaluate subgroups by: numbers, or else a few names.
    """

    image: tuple[str, ...] = ()
    ecg: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    volume: tuple[str, ...] = ()
    report: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    patient: str = ""
    example: str = ""
    split: str = ""
    time: str = ""
    identifier: tuple[str, ...] = ()
    attribute: tuple[str, ...] = ()

    def all(self) -> list[str]:
        """Every column that is named."""
        single = [c for c in (self.patient, self.example, self.split, self.time) if c]
        modalities = (*self.image, *self.ecg, *self.text, *self.numeric, *self.volume, *self.report)
        return [*modalities, *self.label, *self.identifier, *self.attribute, *single]


@dataclass(frozen=True)
class Table:
    """A table (CSV, TSV, JSON lines, Parquet) as a source; file names in it are relative to its folder.

    An empty cell is a missing item or value. A file's first bytes tell its format: image columns name PNG, JPEG, TIFF,
    BMP, WebP or DICOM files, ECG columns EDF or CSV files or WFDB records without their ending, volume columns NIfTI
    or NRRD files or the folders of DICOM series. Without a patient column every row counts as a patient of its own.

    prompts: a JSON file `{label: {"positive": [...], "negative": [...]}}` for zero-shot evaluation. sections: of
    reports, those that are kept, in this order ("findings", "impression", ..., see `medjax.data.readers.report`).
    uncertain: what a label of -1 becomes (`medjax.data.readers.table.binary`). options: of readers, by their names,
    such as `{"nifti": {"unit": "HU"}}`.
    """

    path: Path
    columns: Columns
    name: str
    licence: str
    ecg_rate: float = 100.0
    prompts: str = ""
    sensitive: bool = True
    sections: tuple[str, ...] = ()
    uncertain: str = "refuse"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self):
        check_choice("policy for uncertain labels", self.uncertain, UNCERTAIN)
        for name in self.options:
            check_choice("reader", name, READERS)

    @property
    def schema(self) -> Schema:
        """The modalities whose columns are named."""
        c = self.columns
        modalities = {
            "image": Modality("image") if c.image else None,
            "ecg": Modality("ecg", LEADS, ("mV",) * len(LEADS), self.ecg_rate) if c.ecg else None,
            "labs": Modality("labs", c.numeric, ("",) * len(c.numeric)) if c.numeric else None,
            "text": Modality("text") if c.text or c.report else None,
            "volume": Modality("volume") if c.volume else None,
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
            attributes=self._attributes,
        )

    @cached_property
    def _attributes(self) -> dict[str, tuple[str, ...]]:
        """Of each attribute column none where all its cells are numbers, else the names that stand in it."""
        columns = self.columns.attribute
        rows = read_table(self.path, columns) if columns else []
        return {c: _names(c, {row[c].strip() for row in rows}) for c in columns}

    @property
    def root(self) -> Path:
        """The folder that holds the table and every file it names."""
        return self.path.parent

    def studies(self) -> Sequence[Study]:
        """One study a row."""
        c = self.columns
        if not (c.image or c.ecg or c.volume or c.text or c.report or c.numeric):
            raise LayoutError(
                "a table needs at least one of --image_columns, --ecg_columns, --volume_columns, --text_columns, "
                "--report_columns, --numeric_columns"
            )
        rows = read_table(self.path, c.all())
        return [self._study(i, *pair) for i, pair in enumerate(zip(rows, self._days(rows), strict=True))]

    def _days(self, rows: Sequence[dict[str, str]]) -> list[float | None]:
        """Of each row, where the time column holds dates; numbers are read with their row."""
        c = self.columns
        dates = [row[c.time] for row in rows] if c.time else []
        if not are_dates(dates):
            return [None] * len(rows)
        return relative_days([row[c.patient].strip() if c.patient else str(i) for i, row in enumerate(rows)], dates)

    def _study(self, i: int, row: dict[str, str], day: float | None) -> Study:
        c = self.columns
        name = row[c.example] if c.example else f"row {i + 2}"
        patient = row[c.patient].strip() if c.patient else name
        split = row[c.split].strip().lower() if c.split else None
        split = _SPLIT_NAMES.get(split, split)
        identifiers = tuple(row[k].strip() for k in c.identifier if row[k].strip())
        return Study(name, patient, split, partial(self._read, name, patient, row, day), identifiers)

    def _read(self, name: str, patient: str, row: dict[str, str], day: float | None) -> Example:
        c = self.columns
        if not patient:
            raise UserError(f"column {c.patient!r} is empty; name the patient or drop the row")
        texts = [row[k] for k in c.text] + [read_report(self._file(row[k])) for k in c.report if row[k].strip()]
        texts = [choose(t, self.sections) if self.sections else t for t in texts]
        items: dict[str, list[Any]] = {
            kind: [self._item(kind, self._file(row[k])) for k in columns if row[k].strip()]
            for kind, columns in (("image", c.image), ("ecg", c.ecg), ("volume", c.volume))
        }
        items["text"] = [encode_text(t.strip()) for t in texts if t.strip()]
        values = np.array([number(row[k], k) for k in c.numeric], np.float32)
        if np.any(~np.isnan(values)):
            items["labs"] = [values]
        items = {m: x for m, x in items.items() if x}
        if not items:
            raise UserError("the row is empty: no image, ECG, volume, text or number")
        return Example(
            example_id=name,
            patient_id=patient,
            items=items,
            time=day if day is not None else number(row[c.time], c.time) if c.time else 0.0,
            labels={k: binary(row[k], k, self.uncertain) for k in c.label},
            factors={k: self._factor(k, row[k].strip()) for k in c.attribute},
        )

    def _factor(self, column: str, cell: str) -> float:
        names = self._attributes[column]
        if not names:
            return number(cell, column)
        return float(names.index(cell)) if cell in names else float("nan")

    def _file(self, name: str) -> Path:
        """The file, which must lie in the table's folder."""
        folder = self.path.parent.resolve()
        try:
            path = (folder / name.strip()).resolve()
        except (ValueError, OSError, RuntimeError):  # a NUL, or a loop of links
            raise UserError(f"{name.strip()[:80]!r} is no file name") from None
        if not path.is_relative_to(folder):
            raise UserError(f"file {name.strip()!r} lies outside the folder of the table; move it there")
        return path

    def _item(self, kind: str, path: Path) -> FileItem:
        reader = reader_for(path, kind)
        given = {"rate": self.ecg_rate} if kind == "ecg" else {}
        return FileItem(reader, path, given | dict(self.options.get(reader, {})))


def _names(column: str, cells: set[str]) -> tuple[str, ...]:
    """Sorted; none where all cells are numbers.

    Raises:
      UserError: there are too many.
    """
    try:
        for cell in cells:
            number(cell, column)
    except UserError:
        names = sorted(c for c in cells if c.lower() not in _UNKNOWN)
        if len(names) > _MOST_NAMES:
            raise LayoutError(
                f"attribute column {column!r} holds {len(names)} different texts, and may hold {_MOST_NAMES}; give "
                "numbers, or fewer names"
            ) from None
        return tuple(names)
    return ()


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
