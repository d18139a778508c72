"""CT-RATE's layout (arXiv 2403.17834): chest CT with reports; the reconstructions of a scan are one group."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from medjax.data.items import FileItem
from medjax.data.manifest import Finding, Modality
from medjax.data.readers.table import binary
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.layout import columns_of, held_out, stream_rows
from medjax.errors import UserError, check_choice

_NAME = re.compile(r"((train|valid)_[0-9]+)_([a-z]+)_([0-9]+)\.nii\.gz", re.ASCII)
_REPORTS = {"train": "train_reports.csv", "valid": "validation_reports.csv"}
_VALIDATION_SHARE = 0.05  # of the training patients
_EMPTY = ("", "not given.")  # what stands where a section is missing


@dataclass(frozen=True)
class CtRate:
    """The folder `dataset` of the archive, or the one that holds it: `train_fixed/train_1/train_1_a/train_1_a_1.nii.gz`
    (patient, scan, reconstruction), `radiology_text_reports/train_reports.csv` with the columns `VolumeName`,
    `Findings_EN` and `Impressions_EN`, `multi_abnormality_labels/train_predicted_labels.csv` with a column for each of
    its labels, and `metadata/no_chest_train.txt`, a list of volumes to leave out.

    Volumes are taken in Hounsfield units from the folders whose headers the archive has mended, `train_fixed` and
    `valid_fixed`: those of `train` and `valid` lack spacing, orientation and scale.

    reconstructions: "examples" makes an example of each; they share `group_id`, patient and text; recipes keep
    examples of one group out of each other's negatives (same_group="mask"). "items" makes one example of a scan, of
    which a training step draws one reconstruction: so they can never be negatives of each other.

    Splits: official `valid` is the test split, a share of the training patients the validation split. Labels come from
    a program that read the reports; a report's text and its labels are the same knowledge.

    The archive asks for an agreement, so the layout is tested on generated files; that the mended folders are in
    Hounsfield units, and the lists of volumes that are no chest, are known from descriptions only.
    """

    path: Path
    reconstructions: Literal["examples", "items"] = "examples"

    def __post_init__(self):
        check_choice("reconstructions", self.reconstructions, ("examples", "items"))

    @property
    def root(self) -> Path:
        """The folder that holds all files."""
        return self.path / "dataset" if (self.path / "dataset").is_dir() else self.path

    @property
    def schema(self) -> Schema:
        """Volumes, reports and labels."""
        labels = tuple(c for c in columns_of(self._labels_file("train")) if c != "VolumeName")
        return Schema(
            name="ct-rate",
            source="CT-RATE, arXiv 2403.17834",
            licence="CC-BY-NC-SA-4.0",
            modalities={"volume": Modality("volume"), "text": Modality("text")},
            labels=labels,
            findings={x: Finding((x.lower(),), (f"no {x.lower()}",), seen_in=("volume",)) for x in labels},
            notes=(
                f"The official validation split is the test split; validation is {_VALIDATION_SHARE:.0%} of the "
                "training patients. Labels are read out of reports by a program.",
            ),
        )

    def studies(self) -> Sequence[Study]:
        """One study a volume or a scan, in the order of the tables of reports."""
        out = []
        for official, table in _REPORTS.items():
            labels, excluded = self._labels(official), self._excluded(official)
            scans: dict[str, tuple[str, list[str]]] = {}
            columns = ("VolumeName", "Findings_EN", "Impressions_EN")
            for volume, *sections in stream_rows(self.root / "radiology_text_reports" / table, columns):
                if volume not in excluded:
                    patient, scan = _parse(volume, official, table)
                    key = scan if self.reconstructions == "items" else volume
                    text = " ".join(x.strip() for x in sections if x.strip().lower() not in _EMPTY)
                    scans.setdefault(key, (text, []))[1].append(volume)
            for key, (text, volumes) in scans.items():
                patient, scan = _parse(volumes[0], official, table)
                read = partial(_read, self.root, key, scan, patient, volumes, text, labels.get(volumes[0], {}))
                out.append(Study(key, patient, _split(official, patient), read))
        return out

    def _labels_file(self, official: str) -> Path:
        return self.root / "multi_abnormality_labels" / f"{official}_predicted_labels.csv"

    def _labels(self, official: str) -> dict[str, dict[str, float]]:
        path = self._labels_file(official)
        names = [c for c in columns_of(path) if c != "VolumeName"]
        return {
            volume: {name: binary(cell, name) for name, cell in zip(names, cells, strict=True)}
            for volume, *cells in stream_rows(path, ("VolumeName", *names))
        }

    def _excluded(self, official: str) -> set[str]:
        """Volumes that show no chest."""
        path = self.root / "metadata" / f"no_chest_{official}.txt"
        names = path.read_text(errors="replace").split() if path.is_file() else []
        return {f"{name.split('/')[-1].removesuffix('.nii.gz')}.nii.gz" for name in names}


def _parse(volume: str, official: str, table: str) -> tuple[str, str]:
    """Patient and scan of a name such as train_1_a_2.nii.gz; train_7 and valid_7 are different patients."""
    match = _NAME.fullmatch(volume)
    if not match or match.group(2) != official:
        raise UserError(f"{table} names the volume {volume[:60]!r}; expected such as {official}_1_a_1.nii.gz")
    return match.group(1), f"{match.group(1)}_{match.group(3)}"


def _split(official: str, patient: str) -> str:
    if official == "valid":
        return "test"
    return "validation" if held_out(patient, _VALIDATION_SHARE) else "train"


def _read(
    root: Path, name: str, scan: str, patient: str, volumes: list[str], text: str, labels: dict[str, float]
) -> Example:
    folder = root / f"{patient.split('_')[0]}_fixed" / patient / scan
    items: dict[str, list] = {"volume": [FileItem("nifti", folder / volume, {"unit": "HU"}) for volume in volumes]}
    if text:
        items["text"] = [encode_text(text)]
    return Example(example_id=name, patient_id=patient, group_id=scan, items=items, labels=labels)
