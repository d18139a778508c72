"""webdataset shards in OpenCLIP's format: pictures with captions, and what their JSON says of patient and labels."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.readers.image import clean
from medjax.data.readers.table import UNCERTAIN, as_cell, binary, number
from medjax.data.readers.webdataset import Sample, expand_shards, samples
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.table import Columns
from medjax.errors import LayoutError, UserError, check_choice

_IMAGES = ("jpg", "jpeg", "png", "tif", "tiff", "webp", "bmp")
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_MAX_TEXT = 2**22


@dataclass(frozen=True)
class WebDataset:
    """Shards by a pattern such as `shards/train-{000..127}.tar`.

    Members: a picture (.jpg, .png, .tif, .webp, .bmp), or several of one sample (`key.0.jpg`, `key.1.jpg`); captions
    (.txt); .json, whose keys `keys` names as those of a table (text, numeric, label, patient, split, identifier);
    .cls, the number of the sample's class, if `classes` names them. Without a key for it the split is that of the
    shard's file name if it has one of the words train, val, valid, validation, test. Without a patient every sample
    counts as a patient of its own.
    """

    shards: str
    name: str = "webdataset"
    licence: str = "unknown"
    keys: Columns = field(default_factory=Columns)
    classes: tuple[str, ...] = ()
    uncertain: str = "refuse"
    sensitive: bool = True

    def __post_init__(self):
        k = self.keys
        check_choice("policy for uncertain labels", self.uncertain, UNCERTAIN)
        if set(k.all()) - {*k.text, *k.numeric, *k.label, *k.identifier, k.patient, k.split}:
            raise LayoutError("of the JSON in webdataset shards only text, numbers, labels, patient and split are read")

    @property
    def schema(self) -> Schema:
        """Pictures and captions."""
        numeric = self.keys.numeric
        notes = () if self.keys.patient else ("No patient ids: every example counts as a patient of its own.",)
        return Schema(
            name=self.name,
            source=f"webdataset shards {Path(self.shards).name}",
            licence=self.licence,
            modalities={
                "image": Modality("image"),
                "text": Modality("text"),
                **({"labs": Modality("labs", numeric, ("",) * len(numeric))} if numeric else {}),
            },
            labels=(*self.keys.label, *self.classes),
            sensitive=self.sensitive,
            patients_known=bool(self.keys.patient),
            notes=notes,
        )

    def studies(self) -> Sequence[Study]:
        """One study a sample."""
        paths = expand_shards(self.shards)
        out = [self._study(sample, shard) for shard, path in enumerate(paths) for sample in samples(path)]
        if not out:
            raise LayoutError(f"shards {self.shards} hold no sample")
        return out

    def _study(self, sample: Sample, shard: int) -> Study:
        name = f"{shard}/{sample.key}"  # keys need not differ between shards
        patient, split, keys = name, _split_of(sample.path.stem), self.keys
        try:
            found = self._json(sample) if keys.patient or keys.split or keys.identifier else {}
            if keys.patient:
                patient = as_cell(found.get(keys.patient), keys.patient).strip()
            if keys.split:
                split = as_cell(found.get(keys.split), keys.split).strip().lower()
                split = _SPLITS.get(split, split)
            identifiers = tuple(x for k in keys.identifier if (x := as_cell(found.get(k), k).strip()))
        except UserError as error:
            return Study(name, patient, "train", partial(_refuse, f"{_where(sample)}: {error}"))
        return Study(name, patient, split, partial(self._read, name, patient, sample), identifiers)

    def _read(self, name: str, patient: str, sample: Sample) -> Example:
        try:
            found = self._json(sample)
            if not patient:
                raise UserError(f"has no {self.keys.patient!r} in its JSON; name the patient or leave it out")
            texts = [_text(sample, e) for e in _endings(sample, ("txt",))]
            texts += [as_cell(found.get(k), k) for k in self.keys.text]
            items: dict[str, list[np.ndarray]] = {
                "image": [clean(sample.read(e)) for e in _endings(sample, _IMAGES)],
                "text": [encode_text(t.strip()) for t in texts if t.strip()],
            }
            values = np.array([number(as_cell(found.get(k), k), k) for k in self.keys.numeric], np.float32)
            items["labs"] = [values] if np.any(~np.isnan(values)) else []
            if not any(items.values()):
                raise UserError(f"has no picture and no caption; it holds {', '.join(sample.members)[:80]}")
            labels = {k: binary(as_cell(found.get(k), k), k, self.uncertain) for k in self.keys.label} | self._class(
                sample
            )
        except UserError as error:
            raise UserError(f"{_where(sample)}: {error}") from None
        return Example(name, patient, {m: x for m, x in items.items() if x}, labels=labels)

    def _json(self, sample: Sample) -> Mapping[str, Any]:
        endings = _endings(sample, ("json",))
        if not endings or not self.keys.all():
            return {}
        try:
            found = json.loads(_text(sample, endings[0]))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"its .json is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise UserError("its .json is no object")
        return found

    def _class(self, sample: Sample) -> dict[str, float]:
        endings = _endings(sample, ("cls", "cls.txt")) if self.classes else []
        if not endings:
            return {}
        number = _text(sample, endings[0]).strip()
        if not re.fullmatch(r"\d{1,6}", number) or int(number) >= len(self.classes):
            raise UserError(f"its .cls is {number[:20]!r}; classes are 0..{len(self.classes) - 1}")
        return {c: float(i == int(number)) for i, c in enumerate(self.classes)}


def _where(sample: Sample) -> str:
    return f"sample {sample.key[:80]!r} of {sample.path.name}"


def _refuse(reason: str) -> Example:
    raise UserError(reason)


def _endings(sample: Sample, kinds: tuple[str, ...]) -> list[str]:
    """The sample's endings of some kinds: `jpg`, and `0.jpg`, `1.jpg` in that order."""
    return [e for e in sorted(sample.members) if e in kinds or e.rpartition(".")[2] in kinds]


def _text(sample: Sample, ending: str) -> str:
    if sample.members[ending][1] > _MAX_TEXT:
        raise UserError(f"its .{ending} has {sample.members[ending][1]} bytes; the limit is {_MAX_TEXT}")
    try:
        return sample.read(ending).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"its .{ending} is not UTF-8") from None


def _split_of(stem: str) -> str | None:
    words = [w for w in re.split(r"[^a-z]+", stem.lower()) if w in _SPLITS]
    return _SPLITS[words[0]] if words else None
