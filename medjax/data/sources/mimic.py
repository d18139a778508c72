"""MIMIC-CXR-JPG alone, or joined with MIMIC-IV-ECG and the lab tests of MIMIC-IV by subject and window of time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from medjax.data.items import FileItem
from medjax.data.manifest import Modality
from medjax.data.readers.leads import LEADS
from medjax.data.records import Example, encode_text
from medjax.data.sources import mimic_joins
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.chexpert_labels import LABELS, LabelPolicy, findings
from medjax.data.sources.lab_events import SYMILE_LABS
from medjax.data.sources.layout import holds_table, inside
from medjax.data.sources.mimic_cxr import Radiograph, read_radiographs, report_of
from medjax.data.sources.mimic_joins import Joined
from medjax.errors import UserError, check_choice

_DEPTH = 3  # folders between --input and an archive, as in physionet.org/files/mimic-cxr-jpg/2.1.0
_PROBED = 100  # studies among which one must have a report
_RULES = ("study", "window", "admission")


@dataclass(frozen=True)
class Mimic:
    """A folder under which the archives of PhysioNet lie, by themselves or as `physionet.org/files/...`: MIMIC-CXR-JPG,
    the reports of MIMIC-CXR (`files/p10/p10000032/s50414267.txt`), MIMIC-IV-ECG and MIMIC-IV's `hosp`.

    rule: what an example is.
      "study": a radiograph, its views and its report.
      "window": a radiograph and an ECG of one subject at most `days` apart, each pair an example, so that both come
        several times (MoRE, arXiv 2410.16239, with days=60); `nearest` keeps only the nearest ECG of each radiograph.
        The text is the report, then the statements of the ECG machine. Train with same_patient="mask".
      "admission": Symile-MIMIC's (arXiv 2411.01053): the first ECG and the first value of each of fifty lab tests
        within 24 hours of admission, and the first frontal radiograph more than 24 and at most 72 hours after it; all
        three must be there, and the labels. There, ECGs of zeros or with gaps are passed over for the next; here the
        admission of one with gaps is rejected, and one of zeros stays.

    frontal: leave out views other than PA and AP. labeller: "chexpert" or "negbio". rate: samples per second of ECGs
    in the records. reports: with texts. Splits are the official ones of MIMIC-CXR-JPG, by subject; times are days since
    the subject's first event here.

    The archives are credentialed, but for the ECGs, so the layout is tested on generated files; its names are those of
    the public documentation and of public code that reads it. Time and memory on the whole of it were not measured.
    """

    path: Path
    rule: Literal["study", "window", "admission"] = "study"
    days: float = 60.0
    nearest: bool = False
    frontal: bool = True
    labeller: Literal["chexpert", "negbio"] = "chexpert"
    rate: float = 100.0
    reports: bool = True
    policy: LabelPolicy = field(default_factory=LabelPolicy)

    def __post_init__(self):
        check_choice("MIMIC rule", self.rule, _RULES)
        check_choice("MIMIC labeller", self.labeller, ("chexpert", "negbio"))
        if not self.days > 0:
            raise UserError(f"a window must have more than 0 days, got {self.days}")

    @property
    def root(self) -> Path:
        """The folder that holds all files."""
        return self.path

    @property
    def schema(self) -> Schema:
        """Pictures, reports and labels, and what the rule adds."""
        names, units = zip(*SYMILE_LABS.values(), strict=True)
        modalities = {"image": Modality("image")}
        if self.rule != "study":
            modalities["ecg"] = Modality("ecg", LEADS, ("mV",) * len(LEADS), self.rate)
        if self.rule == "admission":
            modalities["labs"] = Modality("labs", names, units)
        if self.reports:
            modalities["text"] = Modality("text")
        return Schema(
            name=f"mimic-{self.rule}",
            source={
                "study": "MIMIC-CXR-JPG and MIMIC-CXR, PhysioNet",
                "window": f"MIMIC-CXR-JPG, MIMIC-CXR and MIMIC-IV-ECG, PhysioNet, at most {self.days:g} days apart",
                "admission": "MIMIC-CXR-JPG, MIMIC-CXR, MIMIC-IV-ECG and MIMIC-IV, PhysioNet, by admission",
            }[self.rule],
            licence="PhysioNet-Credentialed-1.5.0",
            modalities=modalities,
            labels=LABELS,
            findings=findings(),
            notes=(self.policy.note(),),
            patient_space="mimic",
        )

    def studies(self) -> Sequence[Study]:
        """One study an example of the rule, in the order of the tables."""
        folders = _folders(self.path)
        cxr = _holding(folders, "mimic-cxr-2.0.0-metadata.csv", self.path)
        radiographs = read_radiographs(cxr, self.policy, self.labeller, self.frontal or self.rule == "admission")
        texts = self._report_folders(folders, radiographs)
        if self.rule == "study":
            joined, ecg = mimic_joins.by_study(radiographs), cxr
        else:
            ecg = _holding(folders, "record_list.csv", self.path)
            if self.rule == "window":
                joined = mimic_joins.by_window(radiographs, ecg, self.days, self.nearest, self.reports)
            else:
                joined = mimic_joins.by_admission(radiographs, ecg, _holding(folders, "labevents.csv", self.path))
        if not joined:
            raise UserError(f"nothing in {self.path} satisfies the rule {self.rule!r}; are the archives complete?")
        read = partial(_read, cxr, ecg, texts, self.rate)
        return [Study(x.name, x.radiograph.subject, x.radiograph.split, partial(read, x)) for x in joined]

    def _report_folders(self, folders: list[Path], radiographs: list[Radiograph]) -> list[Path]:
        if not self.reports:
            return []
        texts = [folder for folder in folders if (folder / "files").is_dir()]
        if not any(report_of(texts, r.subject, r.study) for r in radiographs[:_PROBED]):
            raise UserError(
                f"there are no reports files/p10/p10000032/s50414267.txt under {self.path}; unpack "
                "mimic-cxr-reports.zip of MIMIC-CXR there, or build without reports"
            )
        return texts


def _folders(root: Path) -> list[Path]:
    """The folders in which an archive may lie; those of the patients, below "files", are not looked into."""
    if not root.is_dir():
        raise UserError(f"folder {root} does not exist")
    out, level = [root], [root]
    for _ in range(_DEPTH):
        level = sorted(p for folder in level for p in folder.iterdir() if p.is_dir() and p.name != "files")
        out += level
    return out


def _holding(folders: list[Path], name: str, root: Path) -> Path:
    for folder in folders:
        if holds_table(folder, name):
            return folder
    raise UserError(f"{name} or {name}.gz is nowhere under {root}, at most {_DEPTH} folders deep; get the archive")


def _read(cxr: Path, ecg: Path, texts: list[Path], rate: float, joined: Joined) -> Example:
    r = joined.radiograph
    items: dict[str, list] = {"image": [FileItem("image", inside(cxr, name)) for name in r.files()]}
    if joined.ecg:
        items["ecg"] = [FileItem("wfdb", inside(ecg, joined.ecg), {"rate": rate})]
    if joined.labs is not None:
        items["labs"] = [np.asarray(joined.labs, np.float32)]
    report = report_of(texts, r.subject, r.study)
    text = f"{report} ECG: {joined.statements}" if joined.statements else report
    if text.strip():
        items["text"] = [encode_text(text.strip())]
    return Example(
        example_id=joined.name,
        patient_id=r.subject,
        group_id=joined.group,
        items=items,
        time=joined.day,
        labels=r.labels,
    )
