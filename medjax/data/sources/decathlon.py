"""Medical Segmentation Decathlon (arXiv 2106.05735): CT and MR volumes, with the sizes of their structures."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.items import FileItem
from medjax.data.manifest import Modality
from medjax.data.readers.nifti import read_nifti
from medjax.data.records import Example
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.layout import inside
from medjax.errors import UserError

_TABLE = "dataset.json"
# In Task04 cases of neighbouring numbers may be the two sides of one brain, and the archive does not say which.
_BLOCK = {"hippocampus": 10}
_SPLITS = ("train",) * 7 + ("validation",) + ("test",) * 2


@dataclass(frozen=True)
class Decathlon:
    """The folder of one task: `dataset.json`, with `training` = [{"image", "label"}], `labels` and `modality`, and the
    NIfTI files that it names. A task of several sequences gives volumes of as many channels; CT is in Hounsfield units.
    The modality "mask" is the labelled volume of a case, whose values are the keys of `labels`; where these are 0, 1,
    2, ... its names are those of the values.

    The lab values of a case are the volumes in mm^3 of the structures of its mask. Cases without a mask (the task's own
    test cases) are left out. The archive names no patients: every case is one, but for Task04, hippocampus, where ten
    of neighbouring numbers are taken as one, so that no brain stands in two splits. Nor are there splits with masks: of
    ten numbers, or blocks of them, the last two are the test split and the one before validation.
    """

    path: Path

    @property
    def root(self) -> Path:
        """The folder that holds all files."""
        return self.path

    @cached_property
    def _task(self) -> dict[str, Any]:
        path = self.path / _TABLE
        if not path.is_file():
            raise UserError(f"{path} does not exist; give the folder of one task of the decathlon")
        try:
            task = json.loads(path.read_bytes())
            cases = [(str(x["image"]), str(x["label"])) for x in task["training"]]
            labels = {int(k): str(v) for k, v in task["labels"].items() if int(k)}
            modalities = [str(v) for v in task["modality"].values()]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is not the table of a task ({error!r}); get it again") from None
        if not cases or not labels or not modalities:
            raise UserError(f"{path} names no training cases, labels or modality; get it again")
        name, licence = str(task.get("name", self.path.name)), str(task.get("licence", "unknown"))
        return {"name": name, "licence": licence, "cases": cases, "labels": labels, "modalities": modalities}

    @property
    def schema(self) -> Schema:
        """Volumes, and the volumes of what the masks show."""
        task = self._task
        names = tuple(task["labels"].values())
        consecutive = sorted(task["labels"]) == list(task["labels"]) == list(range(1, len(names) + 1))
        block = _BLOCK.get(task["name"].lower())
        neighbours = f"; {block} of neighbouring numbers count as one patient" if block else ""
        return Schema(
            name=f"decathlon-{task['name'].lower()}",
            source="Medical Segmentation Decathlon, arXiv 2106.05735",
            licence=task["licence"],
            modalities={
                "volume": Modality("volume"),
                "mask": Modality("volume", ("background", *names) if consecutive else ()),
                "labs": Modality("labs", names, ("mm3",) * len(names)),
            },
            sensitive=False,
            patients_known=False,
            notes=(f"No patient ids{neighbours}.", "Lab values are volumes in mm^3, measured in the masks."),
        )

    def studies(self) -> Sequence[Study]:
        """One study a training case, in the order of the table."""
        return [self._study(*case) for case in self._task["cases"]]

    def _study(self, image: str, label: str) -> Study:
        name = Path(image).name.removesuffix(".gz").removesuffix(".nii")
        number = re.search(r"\d{1,9}$", name)
        if number is None:
            raise UserError(f"{_TABLE} names {name[:80]!r}, which does not end in the number of a case; correct it")
        block = _BLOCK.get(self._task["name"].lower(), 1)
        at = int(number[0]) // block
        patient = name if block == 1 else f"block {at}"
        return Study(name, patient, _SPLITS[at % len(_SPLITS)], partial(self._read, name, patient, image, label))

    def _read(self, name: str, patient: str, image: str, label: str) -> Example:
        several = len(self._task["modalities"]) > 1
        unit = "HU" if self._task["modalities"][0].upper() == "CT" else ""
        volume = FileItem("nifti", inside(self.path, image), {"unit": unit, "channels": several})
        path = inside(self.path, label)
        items = {"volume": [volume], "mask": [FileItem("nifti", path)], "labs": [self._sizes(path)]}
        return Example(name, patient, items)

    def _sizes(self, path: Path) -> np.ndarray:
        """float32[F]: mm^3 of each structure of a mask."""
        mask = read_nifti(path)
        found, counts = np.unique(mask.values, return_counts=True)
        if unknown := set(found.tolist()) - {0, *self._task["labels"]}:
            raise UserError(f"{path} holds label {min(unknown)}, which {_TABLE} does not name")
        voxels = dict(zip(found.tolist(), counts.tolist(), strict=True))
        return np.array([voxels.get(k, 0) for k in self._task["labels"]], np.float32) * np.float32(
            np.prod(mask.spacing)
        )
