"""Folders of labelled pictures, one a class, made image-text pairs by templated captions (as UniMed-CLIP does)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from medjax.data.items import FileItem
from medjax.data.manifest import Modality
from medjax.data.readers.sniff import reader_for
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.captions import TEMPLATES, class_findings, fill, phrase_of, read_captions
from medjax.errors import LayoutError, UserError

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom")


@dataclass(frozen=True)
class Folders:
    """`path/CLASS/*.png`, or `path/{train,val,test}/CLASS/*.png`, where the folders above the classes are the splits;
    pictures may lie deeper, and may be PNG, JPEG, TIFF, BMP, WebP or DICOM.

    captions: a JSON file `{class: [caption, ...]}`, in which "*" may hold templates with `{}` for the class; without
    it, general templates. Each picture gets one caption of its class, in turn. patient: a regular expression that is
    searched in a picture's path below its class; its first group, or all it matches, is the patient. Without it every
    picture counts as a patient of its own.
    """

    path: Path
    name: str = "folders"
    licence: str = "unknown"
    captions: str = ""
    patient: str = ""
    sensitive: bool = True

    @property
    def root(self) -> Path:
        """The folder that holds all files."""
        return self.path

    @property
    def schema(self) -> Schema:
        """Pictures and captions."""
        findings = class_findings(self._captions, ("image",))
        notes = () if self.patient else ("No patient ids: every picture counts as a patient of its own.",)
        return Schema(
            name=self.name,
            source=f"folders of {len(self._captions)} classes",
            licence=self.licence,
            modalities={"image": Modality("image"), "text": Modality("text")},
            labels=tuple(findings),
            findings=findings,
            sensitive=self.sensitive,
            texts_from_labels=True,
            patients_known=bool(self.patient),
            notes=notes,
        )

    def studies(self) -> Sequence[Study]:
        """One study a picture, in the order of the files' names."""
        pattern, classes, out = self._pattern(), self._captions, []
        for split, folder in self._folders:
            for name in sorted(x.name for x in folder.iterdir() if x.is_dir() and x.name in classes):
                pictures = (x for x in (folder / name).rglob("*") if x.is_file() and x.suffix.lower() in _ENDINGS)
                for i, path in enumerate(sorted(pictures)):
                    out.append(self._study(split, name, path, i, pattern))
        if not out:
            raise LayoutError(f"{self.path} holds no picture; the classes' folders must hold {', '.join(_ENDINGS)}")
        return out

    @cached_property
    def _folders(self) -> list[tuple[str | None, Path]]:
        """The folders of classes, with their split."""
        if not self.path.is_dir():
            raise LayoutError(f"folder {self.path} does not exist")
        found = sorted(x for x in self.path.iterdir() if x.is_dir() and not x.name.startswith("."))
        splits = [x for x in found if x.name.lower() in _SPLITS]
        if splits and len(splits) < len(found):
            other = next(x.name for x in found if x not in splits)
            raise LayoutError(f"{self.path} holds splits ({splits[0].name}) and something else ({other}); move one out")
        return [(_SPLITS[x.name.lower()], x) for x in splits] or [(None, self.path)]

    @cached_property
    def _captions(self) -> dict[str, tuple[str, ...]]:
        names = {x.name for _, f in self._folders for x in f.iterdir() if x.is_dir() and not x.name.startswith(".")}
        if len(names) < 2:
            raise LayoutError(f"{self.path} needs a folder for each of two classes or more, it has {len(names)}")
        classes = sorted(names)
        if self.captions:
            return read_captions(self.captions, classes)
        return {name: fill(TEMPLATES, phrase_of(name)) for name in classes}

    def _pattern(self) -> re.Pattern[str] | None:
        try:
            return re.compile(self.patient) if self.patient else None
        except re.error as error:
            raise LayoutError(f"the patient's regular expression {self.patient!r} is wrong: {error}") from None

    def _study(self, split: str | None, label: str, path: Path, i: int, pattern: re.Pattern[str] | None) -> Study:
        name = path.relative_to(self.path).as_posix()
        patient = name
        if pattern is not None:
            # The class's own name must not make the patient: the same one may stand in several classes.
            found = pattern.search(name.split(f"{label}/", 1)[1])
            patient = (found[1] if pattern.groups else found[0]) or "" if found else ""
        return Study(name, patient, split, partial(self._read, name, patient, label, path, i))

    def _read(self, name: str, patient: str, label: str, path: Path, i: int) -> Example:
        if not patient:
            raise UserError(f"the patient's regular expression {self.patient!r} finds nothing in {name}")
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise UserError(f"{name} is a link that leads out of the folder; copy the file")
        captions = self._captions[label]
        return Example(
            example_id=name,
            patient_id=patient,
            items={
                "image": [FileItem(reader_for(path, "image"), path)],
                "text": [encode_text(captions[i % len(captions)])],
            },
            labels={finding: float(finding == label) for finding in self.schema.labels},
        )
