"""Symile-MIMIC as it was released (doi 10.13026/3vvj-s428): tensors of radiographs, ECGs and lab tests by admission."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.readers.image import encode_png
from medjax.data.records import Example
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.chexpert_labels import LABELS, LabelPolicy, findings
from medjax.data.sources.lab_events import SYMILE_LABS
from medjax.data.sources.layout import columns_of, stream_rows
from medjax.errors import UserError

LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")  # aVF before aVL, as recorded
ITEMS = tuple(sorted(SYMILE_LABS))  # the tensors' order
RATE = 500.0
_MEAN, _STD = (np.array(x, np.float32)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SHAPES = {
    "cxr": (3, None, None),
    "ecg": (1, None, len(LEADS)),
    "labs_percentiles": (len(ITEMS),),
    "labs_missingness": (len(ITEMS),),
}


@dataclass(frozen=True)
class SymileMimic:
    """A folder with `{train,val,test}.csv` and `data_npy/{train,val,test}/{cxr,ecg,labs_percentiles,labs_missingness,
    hadm_id}_{split}.npy`, row by row the same admissions.

    An example is an admission. cxr float32[n, 3, 320, 320], normalised with ImageNet's mean and spread, becomes the
    8-bit picture that it was, as gray; ecg float32[n, 1, 5000, 12] stays as it is, scaled to [-1, 1] by record and not
    in mV (so `scale=1` in the recipe); the percentiles of the fifty lab tests become NaN where labs_missingness is 0:
    in the tensors 1 is observed, against the wording of the description. Labels are the findings that the tables keep.

    test.csv and its tensors hold ten candidates for each of its queries; the queries, label 1, are the test split, and
    their negatives, queries themselves, are not repeated. val_retrieval is val again, and is not read.

    The data are credentialed: the layout is tested on generated files; shapes, names and order are those of the code
    that wrote them (rajesh-lab/symile), the folder `data_npy` that of public code that reads them.
    """

    path: Path
    policy: LabelPolicy = field(default_factory=LabelPolicy)

    @property
    def schema(self) -> Schema:
        """Pictures, ECGs and percentiles."""
        have = columns_of(self.path / "train.csv")
        labels = tuple(label for label in LABELS if label in have)
        return Schema(
            name="symile-mimic",
            source="Symile-MIMIC, PhysioNet, doi 10.13026/3vvj-s428",
            licence="PhysioNet-Credentialed-1.5.0",
            modalities={
                "image": Modality("image"),
                "ecg": Modality("ecg", LEADS, ("of [-1, 1]",) * len(LEADS), RATE),
                "labs": Modality("labs", tuple(SYMILE_LABS[i][0] for i in ITEMS), ("percentile",) * len(ITEMS)),
            },
            labels=labels,
            findings=findings(labels),
            patient_space="mimic",
            notes=("ECGs are scaled to [-1, 1] by record, not in mV.", self.policy.note()),
        )

    def studies(self) -> Sequence[Study]:
        """One study an admission, in the order of the tables."""
        out = []
        for official, split in _SPLITS.items():
            arrays = {name: _open(self._file(name, official), shape) for name, shape in _SHAPES.items()}
            admissions = _open(self._file("hadm_id", official), ())
            rows = self._rows(official)
            for name, array in {**arrays, "hadm_id": admissions}.items():
                if len(array) != len(rows):
                    file = self._file(name, official)
                    raise UserError(f"{file} has {len(array)} rows and {official}.csv {len(rows)}; get both again")
            for i, (patient, admission, query, labels) in enumerate(rows):
                if admission != _whole(str(admissions[i])):
                    raise UserError(f"row {i + 1} of {official}.csv and of its tensors are different admissions")
                if query:
                    read = partial(self._read, official, i, patient, admission, labels)
                    out.append(Study(f"admission {admission}", patient, split, read))
        return out

    def _file(self, name: str, official: str) -> Path:
        return self.path / "data_npy" / official / f"{name}_{official}.npy"

    def _rows(self, official: str) -> list[tuple[str, str, bool, dict[str, float]]]:
        """Patient, admission, whether it is a query, and labels, of each row of a table."""
        path = self.path / f"{official}.csv"
        have = columns_of(path)
        labels = [label for label in LABELS if label in have]
        candidate = "label" if "label" in have else "hadm_id"
        return [
            (
                _whole(patient),
                _whole(admission),
                candidate == "hadm_id" or _whole(query) == "1",
                self.policy.values(dict(zip(labels, cells, strict=True))),
            )
            for patient, admission, query, *cells in stream_rows(path, ("subject_id", "hadm_id", candidate, *labels))
        ]

    def _read(self, official: str, i: int, patient: str, admission: str, labels: dict[str, float]) -> Example:
        cxr, ecg, percentiles, observed = (_open(self._file(k, official), x)[i] for k, x in _SHAPES.items())
        pixels = np.rint((cxr * _STD + _MEAN) * 255)
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255):
            raise UserError(f"the radiograph of row {i + 1} of {official} is not normalised as the archive's code does")
        labs = np.where(observed != 0, percentiles, np.nan).astype(np.float32)
        return Example(
            example_id=admission,
            patient_id=patient,
            group_id=admission,
            items={
                "image": [encode_png(pixels[0].astype(np.uint8))],
                "ecg": [np.ascontiguousarray(ecg[0].T, np.float32)],
                "labs": [labs],
            },
            labels=labels,
        )


def _whole(cell: str) -> str:
    """An id without the ".0" that a table of floats gives it."""
    return cell.strip().removesuffix(".0")


def _open(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """The rows of a .npy file, mapped and not read, after a check of what each must be."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; get the whole archive")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises many types for damaged headers
        raise UserError(f"{path} is no .npy file of numbers: {error}") from None
    found = array.shape[1:]
    if (
        array.dtype.kind not in "fiu"
        or len(found) != len(shape)
        or any(b not in (None, a) for a, b in zip(found, shape, strict=True))
    ):
        wanted = ", ".join("n" if n is None else str(n) for n in (None, *shape))
        raise UserError(f"{path} holds {array.dtype}{list(array.shape)}; expected numbers [{wanted}]")
    return array
