"""Any TFDS data set in ArrayRecord files, through its data source and without TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.building.tfds_builder import METADATA, load_tfds
from medjax.data.manifest import Modality
from medjax.data.readers.image import clean, encode_png
from medjax.data.readers.leads import LEADS
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.table import Columns
from medjax.errors import UserError, suggest

_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Tfds:
    """A prepared data set, `TFDS_FOLDER/name/version` or `TFDS_FOLDER/name/config/version`; nothing is fetched.

    columns: which features hold what; those of features within features are "outer/inner". Pictures may be `Image`
    features, whose encoded bytes are kept, bytes, or arrays of 8 bits; texts are `Text`; ECGs are arrays [C, T] or
    [N, C, T] in mV, at `rate` samples per second, with the twelve leads in canonical order; `numeric` are numbers, NaN
    for missing. A sequence gives several items. Labels are numbers 0 and 1 (another is unknown), each entry of a vector
    a label, or classes (`ClassLabel`), each of which becomes a label of its own.

    Splits train, validation (or valid, val) and test are those of the data set; with others, or only some of these,
    studies have none and are split by patient.
    """

    path: Path
    columns: Columns
    licence: str = "unknown"
    rate: float = 100.0
    sensitive: bool = True

    @property
    def schema(self) -> Schema:
        """What the named features are."""
        info = _builder(str(self.path)).info
        c = self.columns
        for name in c.all():
            _feature(info.features, name)
        modalities = {
            "image": Modality("image") if c.image else None,
            "ecg": Modality("ecg", LEADS, ("mV",) * len(LEADS), self.rate) if c.ecg else None,
            "labs": Modality("labs", c.numeric, ("",) * len(c.numeric)) if c.numeric else None,
            "text": Modality("text") if c.text else None,
        }
        if c.volume or c.split:
            raise UserError("volumes and a column of splits are not read from TFDS data sets; leave them out")
        if not any(modalities.values()):
            raise UserError("name at least one feature of pictures, ECGs, texts or numbers")
        return Schema(
            name=info.name,
            source=f"TFDS {info.full_name}",
            licence=self.licence,
            modalities={m: x for m, x in modalities.items() if x},
            labels=tuple(label for name in c.label for label in _labels(info, name)),
            sensitive=self.sensitive,
            patients_known=bool(c.patient),
            notes=() if c.patient else ("No patient ids: every example counts as a patient of its own.",),
        )

    def studies(self) -> Sequence[Study]:
        """One study an example, split by split."""
        c, _ = self.columns, self.schema  # the schema checks the columns
        splits = _builder(str(self.path)).info.splits
        official = sorted({_SPLITS.get(name, "") for name in splits}) == ["test", "train", "validation"]
        out = []
        for name, info in splits.items():
            for i in range(info.num_examples):
                raw = _source(str(self.path), name)[i] if c.patient or c.identifier else {}
                example = f"{name}-{i}"
                patient = _identifier(_pick(raw, c.patient)) if c.patient else example
                read = partial(_read, str(self.path), name, i, patient, c)
                secrets = tuple(_identifier(_pick(raw, k)) for k in c.identifier)
                out.append(Study(example, patient, _SPLITS[name] if official else None, read, secrets))
        return out


@lru_cache(maxsize=4)
def _builder(path: str) -> Any:
    tfds = load_tfds()
    if not (Path(path) / "features.json").is_file():
        raise UserError(f"{path} is no prepared TFDS data set (features.json is missing); give its version folder")
    try:
        return tfds.builder_from_directory(path)
    except Exception as error:  # whatever a damaged description makes TFDS raise
        raise UserError(f"{path} cannot be opened by TFDS: {' '.join(str(error).split())[:200]}") from None


@lru_cache(maxsize=8)
def _source(path: str, split: str) -> Any:
    """The examples of a split, with pictures left encoded."""
    tfds, builder = load_tfds(), _builder(path)
    skipped = {
        name: tfds.decode.SkipDecoding()
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    try:
        return builder.as_data_source(split, decoders=skipped or None)
    except NotImplementedError:
        raise UserError(
            f"{path} is not in ArrayRecord files; convert it with: tfds convert_format --out_file_format=array_record"
        ) from None


def _pick(example: Mapping[str, Any], name: str) -> Any:
    for part in name.split("/"):
        example = example[part]
    return example


def _feature(features: Any, name: str) -> Any:
    for part in name.split("/"):
        known = list(features) if hasattr(features, "keys") else []
        if part not in known:
            raise UserError(f"the data set has no feature {name!r}; {suggest(part, known)}")
        features = features[part]
    return features


def _labels(info: Any, name: str) -> list[str]:
    """The labels that a feature makes."""
    feature = _feature(info.features, name)
    if getattr(feature, "names", None):
        return list(feature.names)
    if feature.shape == ():
        return [name]
    described = ((info.metadata or {}).get(METADATA) or {}).get(name)
    count = feature.shape[0]
    return list(described) if described and len(described) == count else [f"{name}_{i}" for i in range(count or 0)]


def _identifier(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "-".join(map(str, np.ravel(value)))


def _read(path: str, split: str, i: int, patient: str, c: Columns) -> Example:
    try:
        raw = _source(path, split)[i]
    except Exception as error:  # ArrayRecord, protobuf and TFDS each raise their own
        raise UserError(f"{split} example {i} cannot be read: {' '.join(str(error).split())[:200]}") from None
    items: dict[str, list] = {
        "image": [y for k in c.image for x in _sequence(_pick(raw, k), 3) for y in _picture(x)],
        "ecg": [y for k in c.ecg for y in _ecgs(np.asarray(_pick(raw, k)))],
        "text": [encode_text(t) for k in c.text for x in _sequence(_pick(raw, k), 0) if (t := _text(x, k))],
    }
    values = np.array([float(np.asarray(_pick(raw, k))) for k in c.numeric], np.float32)
    if np.any(~np.isnan(values)):
        items["labs"] = [values]
    items = {m: x for m, x in items.items() if x}
    if not items:
        raise UserError(f"{split} example {i} is empty: no picture, ECG, text or number")
    return Example(
        example_id=_identifier(_pick(raw, c.example)) if c.example else f"{split}-{i}",
        patient_id=patient,
        items=items,
        time=float(_pick(raw, c.time)) if c.time else 0.0,
        labels=_values(_builder(path).info, raw, c.label),
    )


def _sequence(value: Any, rank: int) -> list[Any]:
    """The items of a feature: one, or those of a sequence."""
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > rank):
        return list(value)
    return [value]


def _picture(value: Any) -> list[np.ndarray]:
    if isinstance(value, bytes):
        return [clean(value)] if value else []
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise UserError(f"a picture must be encoded bytes or uint8[H, W, C], got {pixels.dtype}{list(pixels.shape)}")
    return [encode_png(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)]


def _ecgs(signals: np.ndarray) -> list[np.ndarray]:
    signals = signals[None] if signals.ndim == 2 else signals
    if signals.ndim != 3 or signals.shape[1] != len(LEADS):
        raise UserError(f"an ECG must be [{len(LEADS)}, T] or [N, {len(LEADS)}, T], got {list(signals.shape)}")
    return [np.ascontiguousarray(x, np.float32) for x in signals if x.size]


def _text(value: Any, name: str) -> str:
    try:
        return (value.decode() if isinstance(value, bytes) else str(value)).strip()
    except UnicodeDecodeError:
        raise UserError(f"feature {name!r} holds bytes that are no UTF-8 text") from None


def _values(info: Any, raw: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    out = {}
    for name in names:
        labels, value = _labels(info, name), np.asarray(_pick(raw, name))
        if getattr(_feature(info.features, name), "names", None):
            classes = [i == int(value) if value >= 0 else np.nan for i in range(len(labels))]  # -1 is no class
            out |= dict(zip(labels, map(float, classes), strict=True))
        else:
            numbers = np.where(np.isin(value, (0, 1)), value, np.nan).astype(float).ravel()
            out |= dict(zip(labels, numbers.tolist(), strict=True))
    return out
