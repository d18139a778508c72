"""CheXpert's layout (Stanford, arXiv 1901.07031), with the reports of CheXpert Plus where its table is there too."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from medjax.data.items import FileItem
from medjax.data.manifest import Modality
from medjax.data.readers.table import number
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.chexpert_labels import LABELS, LabelPolicy, findings
from medjax.data.sources.layout import columns_of, held_out, inside, stream_rows
from medjax.errors import UserError

_VALIDATION_SHARE = 0.03  # of the patients; about the 5,000 pictures that MGCA and others hold out
_PLUS = "df_chexpert_plus*.csv"
_ABOUT = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_ATTRIBUTES = {"sex": ("male", "female"), "age": (), "view": ("frontal AP", "frontal PA", "lateral")}
_SECTIONS = ("section_findings", "section_impression")
Picture = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class CheXpert:
    """A folder with train.csv, valid.csv and the pictures: `train/patient00001/study1/view1_frontal.jpg`, in the
    original size or in the small edition. An example is a study; its views are items of `image`, frontal ones first.

    Splits: train.csv, valid.csv and, where it is there, test.csv. Without test.csv the 200 studies of valid.csv, which
    radiologists labelled, are the test split, and the validation split is a share of the training patients.

    Reports: `df_chexpert_plus_240401.csv` of CheXpert Plus in the same folder, columns `path_to_image`,
    `section_findings` and `section_impression`, joined by the folder of the study.

    Attributes: sex and age, where they are known, and the view of the study's first picture.

    The archive asks for registration, so the layout is tested on generated files; the names of the columns are those of
    its public documentation, that of test.csv is unconfirmed.
    """

    path: Path
    policy: LabelPolicy = field(default_factory=LabelPolicy)

    @property
    def root(self) -> Path:
        """The folder that holds all files."""
        return self.path

    @property
    def schema(self) -> Schema:
        """Pictures, labels and perhaps reports."""
        notes = [self.policy.note()]
        if not (self.path / "test.csv").is_file():
            notes.append(
                f"No test.csv: valid.csv is the test split, validation is {_VALIDATION_SHARE:.0%} of the patients."
            )
        return Schema(
            name="chexpert",
            source="CheXpert, Stanford AIMI, arXiv 1901.07031",
            licence="Stanford-Research-Use",
            modalities={"image": Modality("image")} | ({"text": Modality("text")} if self._plus() else {}),
            labels=LABELS,
            findings=findings(),
            notes=tuple(notes),
            attributes=_ATTRIBUTES,
        )

    def studies(self) -> Sequence[Study]:
        """One study a study folder, in the order of the tables."""
        tables = {"train": "train.csv", "valid": "valid.csv", "test": "test.csv"}
        has_test = (self.path / "test.csv").is_file()
        grouped: dict[str, tuple[str, list[Picture]]] = {}
        for official, name in tables.items():
            if official == "test" and not has_test:
                continue
            for study, row in _rows(self.path / name):
                grouped.setdefault(study, (official, []))[1].append(row)
        if not grouped:
            raise UserError(f"{self.path / 'train.csv'} and valid.csv list no pictures")
        reports = self._reports()
        out = []
        for study, (official, rows) in grouped.items():
            patient = study.split("/")[1]
            out.append(
                Study(
                    study,
                    patient,
                    _split(official, patient, has_test),
                    partial(_read, self.path, self.policy, study, patient, rows, reports.get(study, "")),
                )
            )
        return out

    def _plus(self) -> Path | None:
        return next(iter(sorted(self.path.glob(_PLUS))), None)

    def _reports(self) -> dict[str, str]:
        """Study folder -> findings and impression."""
        path, out = self._plus(), {}
        if path:
            for name, *parts in stream_rows(path, ("path_to_image", *_SECTIONS)):
                out[_study_of(name, path)] = " ".join(x.strip() for x in parts if x.strip())
        return out


def _split(official: str, patient: str, has_test: bool) -> str:
    if official == "train":
        return "validation" if not has_test and held_out(patient, _VALIDATION_SHARE) else "train"
    return "test" if official == "test" or not has_test else "validation"


def _rows(path: Path) -> Iterator[tuple[str, Picture]]:
    """(study folder, (file, its labels and what else is known of it, as they are written)) of each picture."""
    header = columns_of(path)
    columns = [column for column in (*LABELS, *_ABOUT) if column in header]
    for name, *cells in stream_rows(path, ("Path", *columns)):
        yield _study_of(name, path), (_relative(name), dict(zip(columns, cells, strict=True)))


def _relative(name: str) -> str:
    """The archive's paths begin with its own name, in whatever folder it was unpacked."""
    parts = PurePosixPath(name.strip()).parts
    return "/".join(parts[1:] if parts[:1] and parts[0].startswith("CheXpert") else parts)


def _study_of(name: str, table: Path) -> str:
    parts = PurePosixPath(_relative(name)).parts
    if len(parts) != 4:
        raise UserError(
            f"table {table} names {name.strip()[:80]!r}; expected train/patient00001/study1/view1_frontal.jpg"
        )
    return "/".join(parts[:3])


def _frontal_first(picture: Picture) -> tuple[bool, str]:
    return "frontal" not in picture[0], picture[0]


def _factors(row: dict[str, str]) -> dict[str, float]:
    """The attributes by the numbers of their names, NaN unknown."""
    cells = {column: row.get(column, "").strip().lower() for column in _ABOUT}
    side = cells["Frontal/Lateral"]
    view = f"frontal {cells['AP/PA'].upper()}" if side == "frontal" else side
    named = {"sex": cells["Sex"], "view": view}
    found = {k: float(_ATTRIBUTES[k].index(v)) if v in _ATTRIBUTES[k] else float("nan") for k, v in named.items()}
    return found | {"age": number(row.get("Age", ""), "Age")}


def _read(folder: Path, policy: LabelPolicy, study: str, patient: str, rows: list[Picture], report: str) -> Example:
    pictures = sorted(rows, key=_frontal_first)
    items: dict[str, list] = {"image": [FileItem("image", inside(folder, name)) for name, _ in pictures]}
    if report:
        items["text"] = [encode_text(report)]
    return Example(
        example_id=study,
        patient_id=patient,
        group_id=study,
        items=items,
        labels=policy.values(rows[0][1]),
        factors=_factors(pictures[0][1]),
    )
