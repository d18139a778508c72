"""The first value of each lab test in a window of time, from tables of a hundred million events in bounded memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.data.readers.table import number
from medjax.data.sources.layout import day_of

# The fifty most frequent tests of MIMIC-IV by itemid, those of Symile-MIMIC (arXiv 2411.01053), with names and units of
# d_labitems. H, L and I are indices of haemolysis, lipaemia and icterus.
SYMILE_LABS: Mapping[str, tuple[str, str]] = {
    "51221": ("Hematocrit", "%"),
    "51265": ("Platelet Count", "K/uL"),
    "50912": ("Creatinine", "mg/dL"),
    "50971": ("Potassium", "mEq/L"),
    "51222": ("Hemoglobin", "g/dL"),
    "51301": ("White Blood Cells", "K/uL"),
    "51249": ("MCHC", "g/dL"),
    "51279": ("Red Blood Cells", "m/uL"),
    "51250": ("MCV", "fL"),
    "51248": ("MCH", "pg"),
    "51277": ("RDW", "%"),
    "51006": ("Urea Nitrogen", "mg/dL"),
    "50983": ("Sodium", "mEq/L"),
    "50902": ("Chloride", "mEq/L"),
    "50882": ("Bicarbonate", "mEq/L"),
    "50868": ("Anion Gap", "mEq/L"),
    "50931": ("Glucose", "mg/dL"),
    "50960": ("Magnesium", "mg/dL"),
    "50893": ("Calcium, Total", "mg/dL"),
    "50970": ("Phosphate", "mg/dL"),
    "51237": ("INR(PT)", ""),
    "51274": ("PT", "sec"),
    "51275": ("PTT", "sec"),
    "51146": ("Basophils", "%"),
    "51256": ("Neutrophils", "%"),
    "51254": ("Monocytes", "%"),
    "51200": ("Eosinophils", "%"),
    "51244": ("Lymphocytes", "%"),
    "52172": ("RDW-SD", "fL"),
    "50934": ("H", ""),
    "51678": ("L", ""),
    "50947": ("I", ""),
    "50861": ("Alanine Aminotransferase (ALT)", "IU/L"),
    "50878": ("Asparate Aminotransferase (AST)", "IU/L"),
    "50813": ("Lactate", "mmol/L"),
    "50863": ("Alkaline Phosphatase", "IU/L"),
    "50885": ("Bilirubin, Total", "mg/dL"),
    "50820": ("pH", "units"),
    "50862": ("Albumin", "g/dL"),
    "50802": ("Base Excess", "mEq/L"),
    "50821": ("pO2", "mm Hg"),
    "50804": ("Calculated Total CO2", "mEq/L"),
    "50818": ("pCO2", "mm Hg"),
    "52075": ("Absolute Neutrophil Count", "K/uL"),
    "52073": ("Absolute Eosinophil Count", "K/uL"),
    "52074": ("Absolute Monocyte Count", "K/uL"),
    "52069": ("Absolute Basophil Count", "K/uL"),
    "51133": ("Absolute Lymphocyte Count", "K/uL"),
    "50910": ("Creatine Kinase (CK)", "IU/L"),
    "52135": ("Immature Granulocytes", "%"),
}


@dataclass(frozen=True)
class Window:
    """Whose events count, from day `first` to day `last`, both included."""

    subject: str
    first: float
    last: float


def first_values(
    events: Iterable[tuple[str, ...]], windows: Mapping[str, Window], items: Sequence[str]
) -> dict[str, np.ndarray]:
    """`{key of a window: float32[F]}`, the earliest value of each of the F `items` within the window, NaN where there
    is none; windows without any value are left out.

    events: (subject, item, time, value) as the table has them; those without a number are no events. Of two events of
    the same time the first in the table counts, as in Symile-MIMIC. Memory grows with the windows, not the events.

    Raises:
      UserError: a time that counts is no time.
    """
    column = {item: i for i, item in enumerate(items)}
    by_subject: dict[str, list[tuple[str, Window]]] = {}
    for key, window in windows.items():
        by_subject.setdefault(window.subject, []).append((key, window))
    values: dict[str, np.ndarray] = {}
    since: dict[str, np.ndarray] = {}
    for subject, item, time, value in events:
        if subject not in by_subject or item not in column or not time or np.isnan(x := number(value, "valuenum")):
            continue
        day, at = day_of(time, "the table of lab events"), column[item]
        for key, window in by_subject[subject]:
            if window.first <= day <= window.last:
                if key not in values:
                    values[key] = np.full(len(items), np.nan, np.float32)
                    since[key] = np.full(len(items), np.inf)
                if day < since[key][at]:
                    values[key][at], since[key][at] = x, day
    return values
