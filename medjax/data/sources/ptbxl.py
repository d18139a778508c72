"""PTB-XL (PhysioNet, doi 10.13026/kfzx-aw45): ECG, report and demographics of the same patients."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medjax.data.items import FileItem
from medjax.data.manifest import Finding, Modality
from medjax.data.readers.leads import LEADS
from medjax.data.readers.table import check_columns, number, read_csv
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.errors import UserError

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
_DEMOGRAPHICS = ("age", "sex", "height", "weight")
_COLUMNS = ("ecg_id", "patient_id", "report", "scp_codes", "strat_fold", *_DEMOGRAPHICS)
_RATES = {100: "filename_lr", 500: "filename_hr"}
_FOLDS = {9: "validation", 10: "test"}
_AGE_HIDDEN = 300  # how the archive writes every age above 89
_OLDEST = 90.0

# In the words of the archive's reports, which are German, English and Swedish.
_NORMAL = ("sinusrhythmus normales ekg", "sinus rhythm. normal ecg.")
_PROMPTS = {
    "NORM": (_NORMAL, ("abnormales ekg", "abnormal ecg")),
    "MI": (("infarkt nicht auszuschliessen", "old myocardial infarction. q waves"), _NORMAL),
    "STTC": (("unspezifisches abnormales t", "non-specific st-t wave changes"), _NORMAL),
    "CD": (("rechtsschenkelblock", "bundle branch block", "linksanteriorer hemiblock"), _NORMAL),
    "HYP": (("linkshypertrophie", "voltages are high suggesting lvh"), _NORMAL),
}


@dataclass(frozen=True)
class PTBXL:
    """A folder with ptbxl_database.csv, scp_statements.csv and the WFDB records.

    Splits are the official folds 1-8, 9 and 10, or, where the test fold is absent, the column `split`. Labels are the
    five diagnostic superclasses (multi-label, as in helme/ecg_ptbxl_benchmarking); a record without a diagnostic
    statement has none. Reports are cut at "Edit:", where later annotators wrote the label codes.
    """

    path: Path
    rate: float = 100.0
    prompts: str = ""

    @property
    def schema(self) -> Schema:
        """ECG, report and demographics."""
        findings = {
            name: Finding(positive, negative, seen_in=("ecg",)) for name, (positive, negative) in _PROMPTS.items()
        }
        return Schema(
            name="ptbxl",
            source="PTB-XL, PhysioNet, doi 10.13026/kfzx-aw45",
            licence="CC-BY-4.0",
            modalities={
                "ecg": Modality("ecg", LEADS, ("mV",) * len(LEADS), self.rate),
                "demographics": Modality("labs", _DEMOGRAPHICS, ("a", "1: female", "cm", "kg")),
                "text": Modality("text"),
            },
            labels=SUPERCLASSES,
            findings=findings,
            sensitive=False,
            patient_space="ptbxl",
            attributes={"age": (), "sex": ("male", "female")},
        )

    @property
    def root(self) -> Path:
        """The folder of the archive."""
        return self.path

    def studies(self) -> Sequence[Study]:
        """One study a record."""
        database = self.path / "ptbxl_database.csv"
        rows = read_csv(database)
        file_column = _RATES.get(int(self.rate), "filename_hr")
        check_columns(rows, (*_COLUMNS, file_column), database)
        classes = self._classes()
        folds = {number(row["strat_fold"], "strat_fold") for row in rows}
        if 10 not in folds and "split" not in rows[0]:
            raise UserError(f"{database} has neither the test fold 10 nor a column 'split'; get the whole database")
        out = []
        for row in rows:
            if 10 in folds:
                split = _split(number(row["strat_fold"], "strat_fold"))
            else:
                split = {"val": "validation"}.get(row["split"], row["split"])
            read = partial(self._read, row, row[file_column], classes)
            out.append(Study(f"ecg {row['ecg_id']}", row["patient_id"], split, read))
        return out

    def _classes(self) -> dict[str, str]:
        """Diagnostic statement -> superclass."""
        path = self.path / "scp_statements.csv"
        rows = read_csv(path)
        check_columns(rows, ("", "diagnostic", "diagnostic_class"), path)
        return {row[""]: row["diagnostic_class"] for row in rows if number(row["diagnostic"], "diagnostic") == 1}

    def _read(self, row: dict[str, str], file: str, classes: dict[str, str]) -> Example:
        report = row["report"].split("Edit:")[0].strip()
        if not report:
            raise UserError(f"the report of ecg {row['ecg_id']} is empty")
        try:
            codes = ast.literal_eval(row["scp_codes"])
            if not isinstance(codes, dict):
                raise ValueError(codes)
        except (ValueError, SyntaxError):
            raise UserError(f"scp_codes of ecg {row['ecg_id']} is no dict: {row['scp_codes'][:40]!r}") from None
        found = {classes[c] for c in codes if c in classes}
        demographics = np.array([number(row[k], k) for k in _DEMOGRAPHICS], np.float32)
        if demographics[0] >= _AGE_HIDDEN:
            demographics[0] = np.inf  # above the 99th percentile, to which transforms clip it
        return Example(
            example_id=row["ecg_id"],
            patient_id=row["patient_id"],
            group_id=row["ecg_id"],
            items={
                "ecg": [FileItem("wfdb", self.path / file, {"rate": self.rate})],
                "text": [encode_text(report)],
                **({"demographics": [demographics]} if np.any(~np.isnan(demographics)) else {}),
            },
            labels={name: float(name in found) if found else float("nan") for name in SUPERCLASSES},
            factors={"age": min(float(demographics[0]), _OLDEST), "sex": float(demographics[1])},
        )


def _split(fold: float) -> str | None:
    """The split of an official fold; None, which is refused, for what is no fold."""
    return "train" if fold in range(1, 9) else _FOLDS.get(fold)
