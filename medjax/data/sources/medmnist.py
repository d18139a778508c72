"""Files of MedMNIST and MedMNIST+ made image-text pairs by templated captions (as UniMed-CLIP does)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.readers.image import encode_png
from medjax.data.readers.npz import Array, open_arrays, read_array, read_row
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.medmnist_classes import CLASSES, Classes
from medjax.data.volumes import Volume
from medjax.errors import UserError, suggest

_KEYS = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class MedMNIST:
    """A file with `{train,val,test}_images` and `_labels`, of which the test arrays may be absent, of any size: uint8
    pictures `[N, H, W]` or `[N, H, W, 3]`, volumes `[N, D, H, W]`; labels `[N]`, `[N, 1]` or `[N, classes]`.

    Without test arrays the validation split is the test split and a new validation split, a tenth, is cut from train.
    There are no patient ids: every picture counts as a patient of its own, so intervals are over pictures. Volumes
    keep their stored axes, and their spacing, which the files do not tell, is 1 mm.
    """

    path: Path
    dataset: str = "pneumoniamnist"
    seed: int = 0

    def __post_init__(self):
        if self.dataset not in CLASSES:
            raise UserError(f"no captions for {self.dataset!r}; {suggest(self.dataset, CLASSES)}")

    @property
    def classes(self) -> Classes:
        """Of the data set."""
        return CLASSES[self.dataset]

    @property
    def schema(self) -> Schema:
        """Pictures or volumes, and captions."""
        notes = ["No patient ids: every picture counts as a patient of its own; intervals are over pictures."]
        if "test_images" not in self._arrays:
            notes.append(
                "No test file: the official validation split is the test split here, validation is cut from train."
            )
        if self.classes.volume:
            notes.append("The spacing and the axes of the volumes are not known; 1 mm is written, axes are as stored.")
        findings = self.classes.findings
        return Schema(
            name=self.dataset,
            source=f"MedMNIST file {self.path.name}",
            licence=self.classes.licence,
            modalities={self.classes.modality: Modality(self.classes.modality), "text": Modality("text")},
            labels=tuple(findings),
            findings=findings,
            sensitive=False,
            texts_from_labels=True,
            patients_known=False,
            notes=tuple(notes),
        )

    def studies(self) -> Sequence[Study]:
        """One study a picture."""
        rng = np.random.default_rng(self.seed)
        out = []
        for split, key in _KEYS.items():
            if f"{key}_images" not in self._arrays:
                continue
            images, labels = self._checked(key)
            names = np.array([split] * len(labels), dtype="<U10")
            if "test_images" not in self._arrays:
                names[:] = "test" if split == "validation" else split
                if split == "train":
                    names[rng.permutation(len(labels))[: len(labels) // 10]] = "validation"
            for i, (label, where) in enumerate(zip(labels.tolist(), names, strict=True)):
                name = f"{key}-{i}"
                out.append(Study(name, name, str(where), partial(_read, self.dataset, name, images, label, i)))
        return out

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        arrays = open_arrays(self.path)
        if "train_images" not in arrays or "train_labels" not in arrays:
            raise UserError(f"{self.path} lacks train_images and train_labels; it holds {', '.join(arrays)[:200]}")
        return arrays

    def _checked(self, key: str) -> tuple[Array, np.ndarray]:
        """The images of a split, unread, and its labels, int[N, 1 or classes]."""
        images, labels = self._arrays[f"{key}_images"], self._arrays.get(f"{key}_labels")
        if images.dtype != np.uint8:
            raise UserError(f"{self.path} has {key} images of type {images.dtype}; they must be uint8")
        shape = images.shape
        if not (len(shape) == 4 if self.classes.volume else len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
            wanted = "[N, D, H, W]" if self.classes.volume else "[N, H, W] or [N, H, W, 3]"
            raise UserError(f"{self.path} has {key} images {list(shape)}; those of {self.dataset} are {wanted}")
        values = read_array(labels) if labels else np.zeros(0)
        if not values.ndim or len(values) != shape[0]:
            raise UserError(f"{self.path} has {shape[0]} {key} images and {len(np.atleast_1d(values))} labels")
        values = values.reshape(len(values), -1)
        columns, top = (len(self.classes.names), 1) if self.classes.multi_label else (1, len(self.classes.names) - 1)
        if values.shape[1] != columns or not np.isin(values, range(top + 1)).all():
            raise UserError(f"{self.path} has {key} labels that are not {columns} of 0..{top} a picture")
        return images, values.astype(int)


def _read(dataset: str, name: str, images: Array, label: list[int], i: int) -> Example:
    classes, pixels = CLASSES[dataset], read_row(images, i)
    item = Volume(pixels, (1.0, 1.0, 1.0)) if classes.volume else encode_png(pixels)
    held = dict(zip(classes.names, label, strict=True)) if classes.multi_label else {classes.names[label[0]]: 1}
    return Example(
        example_id=name,
        patient_id=name,
        items={classes.modality: [item], "text": [encode_text(classes.caption(label, i))]},
        labels={finding: float(held.get(finding, 0)) for finding in classes.findings},
    )
