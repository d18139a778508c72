"""The tables of MIMIC-CXR-JPG: studies with their pictures, times, labels, official splits and reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medjax.data.readers.report import description, read_report
from medjax.data.sources.chexpert_labels import LABELS, LabelPolicy
from medjax.data.sources.layout import columns_of, day_of, find_table, stream_rows
from medjax.errors import UserError

_PREFIX = "mimic-cxr-2.0.0"  # of the tables, also in version 2.1.0 of the archive
FRONTAL = ("PA", "AP")
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Radiograph:
    """A study. day: when it was taken, on the archive's shifted calendar. views: (DICOM id, ViewPosition), frontal ones
    first. labels: 0, 1 or NaN by name, empty where the labeller left the study out.
    """

    subject: str
    study: str
    split: str | None
    day: float
    views: tuple[tuple[str, str], ...]
    labels: dict[str, float]

    @property
    def folder(self) -> str:
        """Where its pictures lie, relative to the archive."""
        return f"{subject_folder(self.subject)}/s{self.study}"

    def files(self) -> list[str]:
        """Its pictures, relative to the archive, frontal ones first."""
        return [f"{self.folder}/{dicom}.jpg" for dicom, _ in self.views]


def subject_folder(subject: str) -> str:
    """`files/p10/p10000032`: where MIMIC-CXR keeps a subject."""
    return f"files/p{subject[:2]}/p{subject}"


def read_radiographs(folder: Path, policy: LabelPolicy, labeller: str, frontal: bool) -> list[Radiograph]:
    """All studies, in the order of the metadata table. frontal: leave out lateral and other pictures, and studies that
    have none but these. labeller: "chexpert" or "negbio".

    Raises:
      UserError: a table is missing, damaged, or holds what cannot be read.
    """
    splits = {d: s for d, s in stream_rows(find_table(folder, f"{_PREFIX}-split.csv"), ("dicom_id", "split"))}
    labels = _read_labels(find_table(folder, f"{_PREFIX}-{labeller}.csv"), policy)
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
    views: dict[tuple[str, str], list[tuple[str, str]]] = {}
    rest: dict[tuple[str, str], tuple[str | None, str, str]] = {}
    for dicom, subject, study, view, date, time in stream_rows(find_table(folder, f"{_PREFIX}-metadata.csv"), columns):
        if not frontal or view in FRONTAL:
            views.setdefault((subject, study), []).append((dicom, view))
            rest.setdefault((subject, study), (_SPLITS.get(splits.get(dicom, "")), date, time))
    if not views:
        raise UserError(f"{folder} lists no {'frontal ' if frontal else ''}pictures; get the whole archive")
    out = []
    for (subject, study), found in views.items():
        split, date, time = rest[subject, study]
        ordered = tuple(sorted(found, key=lambda view: view[1] not in FRONTAL))
        out.append(Radiograph(subject, study, split, study_day(date, time), ordered, labels.get(study, {})))
    return out


def _read_labels(path: Path, policy: LabelPolicy) -> dict[str, dict[str, float]]:
    names = [label for label in LABELS if label in columns_of(path)]
    rows = stream_rows(path, ("study_id", *names))
    return {study: policy.values(dict(zip(names, cells, strict=True))) for study, *cells in rows}


def study_day(date: str, time: str) -> float:
    """The day of a StudyDate such as 21800506 and a StudyTime such as 213014.531, which may lack leading zeros.

    Raises:
      UserError: they are none.
    """
    stamp = f"{date.strip().split('.')[0]}T{time.strip().split('.')[0].zfill(6)}"
    return day_of(stamp, f"{_PREFIX}-metadata.csv")


def report_of(folders: Sequence[Path], subject: str, study: str) -> str:
    """Findings and impression of `files/p10/p10000032/s50414267.txt` in the first of the folders that has it, else "".

    Raises:
      UserError: the report is there and cannot be read.
    """
    for folder in folders:
        path = folder / subject_folder(subject) / f"s{study}.txt"
        if path.is_file():
            return description(read_report(path))
    return ""
