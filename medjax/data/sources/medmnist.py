"""A MedMNIST-style .npz of labelled pictures, made image-text pairs by templated captions (as UniMed-CLIP does)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from medjax.data.manifest import Finding, Modality
from medjax.data.readers.image import encode_png
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.errors import UserError

# Caption templates by data set and class; the finding is the class other than 0.
_CAPTIONS = {
    "pneumoniamnist": {
        "pneumonia": (
            (
                "a chest x-ray of a child with pneumonia",
                "pediatric radiograph showing pneumonia",
                "pneumonia, lung opacity",
            ),
            ("a normal chest x-ray of a child", "pediatric radiograph without pneumonia", "clear lungs, no pneumonia"),
        )
    },
}
_KEYS = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class MedMNIST:
    """A file with `{train,val,test}_images` and `_labels`, of which the test arrays may be absent.

    Without them the validation split is the test split and a new validation split, a tenth, is cut from train.
    There are no patient ids: every picture counts as a patient of its own, so intervals are over pictures.
    """

    path: Path
    dataset: str = "pneumoniamnist"
    licence: str = "CC-BY-4.0"
    seed: int = 0

    def __post_init__(self):
        if self.dataset not in _CAPTIONS:
            raise UserError(f"no captions for {self.dataset!r}; there are some for {', '.join(_CAPTIONS)}")

    @property
    def schema(self) -> Schema:
        """Pictures and captions."""
        notes = ["No patient ids: every picture counts as a patient of its own; intervals are over pictures."]
        if "test_images" not in self._arrays():
            notes.append(
                "No test file: the official validation split is the test split here, validation is cut from train."
            )
        findings = {name: Finding(*captions, seen_in=("image",)) for name, captions in _CAPTIONS[self.dataset].items()}
        return Schema(
            name=self.dataset,
            source=f"MedMNIST file {self.path.name}",
            licence=self.licence,
            modalities={"image": Modality("image"), "text": Modality("text")},
            labels=tuple(findings),
            findings=findings,
            sensitive=False,
            texts_from_labels=True,
            patients_known=False,
            notes=tuple(notes),
        )

    def studies(self) -> Sequence[Study]:
        """One study a picture."""
        arrays = self._arrays()
        rng = np.random.default_rng(self.seed)
        out = []
        for split, key in _KEYS.items():
            if f"{key}_images" not in arrays:
                continue
            images, labels = arrays[f"{key}_images"], arrays.get(f"{key}_labels", np.zeros(0)).reshape(-1)
            if images.dtype != np.uint8:
                raise UserError(f"{self.path} has {key} images of type {images.dtype}; they must be uint8")
            if len(images) != len(labels):
                raise UserError(f"{self.path} has {len(images)} {key} images and {len(labels)} labels")
            names = np.array([split] * len(images), dtype="<U10")
            if "test_images" not in arrays:
                names[:] = "test" if split == "validation" else split
                if split == "train":
                    names[rng.permutation(len(images))[: len(images) // 10]] = "validation"
            for i, (image, label, where) in enumerate(zip(images, labels, names, strict=True)):
                name = f"{key}-{i}"
                out.append(Study(name, name, str(where), partial(self._read, name, image, int(label), i)))
        return out

    def _arrays(self) -> dict[str, np.ndarray]:
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist")
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                out = {k: arrays[k] for k in arrays.files}
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            raise UserError(f"{self.path} is no .npz of plain arrays: {error}") from None
        if "train_images" not in out or "train_labels" not in out:
            raise UserError(f"{self.path} lacks train_images and train_labels; it holds {', '.join(out)}")
        return out

    def _read(self, name: str, image: np.ndarray, label: int, i: int) -> Example:
        (finding, (positive, negative)), *_ = _CAPTIONS[self.dataset].items()
        captions = positive if label else negative
        return Example(
            example_id=name,
            patient_id=name,
            items={"image": [encode_png(image)], "text": [encode_text(captions[i % len(captions)])]},
            labels={finding: float(label)},
        )
