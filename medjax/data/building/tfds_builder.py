"""A medjax data set as a TFDS data set in ArrayRecord files, which needs no TensorFlow to write or to read.

    from medjax.data.building.tfds_builder import tfds_builder
    tfds_builder("DATA", "TFDS").download_and_prepare()
    tfds.builder_from_directory("TFDS/phantom/1.0.0").as_data_source("train")

Features: of each modality its items, `image` and `text` as a sequence of bytes (encoded pictures, UTF-8), an ECG as
float32[N, C, T] in mV, lab values as float32[N, F] with NaN for missing; `labels` float32[K] with NaN for unknown;
`example_id`, `group_id` and `patient_id` uint32[2], keyed hashes; `time` float32 in days. What the axes are called, the
licence and the rest of the manifest stand in the metadata under "medjax". Pictures are bytes and no `Image` feature, as
a sequence of those cannot be read without TensorFlow.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data import manifest as manifests
from medjax.data.items import items_of
from medjax.data.manifest import SPLITS, Manifest
from medjax.data.records import decode
from medjax.data.source_files import SourceFiles
from medjax.errors import UserError

METADATA = "medjax"
VERSION = "1.0.0"
_BYTES = ("image", "text")
_IDS = ("example", "group", "patient")


def load_tfds() -> Any:
    """The package tensorflow_datasets.

    Raises:
      UserError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError("TFDS data sets need the package tensorflow-datasets; pip install 'medjax[tfds]'") from None
    return tensorflow_datasets


def tfds_builder(directory: str | Path, data_dir: str | Path, files: str | Path | None = None) -> Any:
    """A `tfds.core.GeneratorBasedBuilder` that writes the records in `directory` to `data_dir/NAME/1.0.0`.

    files: the folder of the source's files, where the data set is index-only.

    Raises:
      UserError: there is no such data set, or it holds volumes, which this does not write.
    """
    tfds = load_tfds()
    manifest = manifests.load(directory)
    if kinds := [m for m, x in manifest.modalities.items() if x.kind not in (*_BYTES, "ecg", "labs")]:
        raise UserError(f"TFDS builders are made of pictures, texts, ECGs and lab values; {kinds[0]!r} is none of them")
    from medjax.data.sampling.sets import OpenSet  # and with it JAX, which the processes of a build do without

    opened = OpenSet("", Path(directory), manifest, files=SourceFiles(files) if files else None)

    class Records(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The data set."""

        name = re.sub(r"\W+", "_", manifest.name.lower()).strip("_") or "medjax"
        VERSION = tfds.core.Version(VERSION)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{manifest.name}: {manifest.source}",
                features=_features(tfds.features, manifest),
                license=manifest.licence,
                metadata=tfds.core.MetadataDict({METADATA: _described(manifest)}),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in SPLITS}

        def _generate_examples(self, split):
            yield from _examples(opened, split)

    return Records(data_dir=str(data_dir), file_format="array_record")


def _features(features: Any, manifest: Manifest) -> Any:
    out: dict[str, Any] = {f"{name}_id": features.Tensor(shape=(2,), dtype=np.uint32) for name in _IDS}
    for name, modality in manifest.modalities.items():
        if modality.kind in _BYTES:
            out[name] = features.Sequence(features.Text())
        elif modality.kind == "ecg":
            shape = (None, len(modality.names), None)
            out[name] = features.Tensor(shape=shape, dtype=np.float32, encoding="zlib")
        else:
            out[name] = features.Tensor(shape=(None, len(modality.names)), dtype=np.float32)
    out["labels"] = features.Tensor(shape=(len(manifest.labels),), dtype=np.float32)
    out["time"] = features.Scalar(dtype=np.float32)
    return features.FeaturesDict(out)


def _described(manifest: Manifest) -> dict[str, Any]:
    """The manifest but for the files."""
    return {k: v for k, v in dataclasses.asdict(manifest).items() if k not in ("splits", "tokenizer")}


def _examples(opened: Any, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    modalities = opened.manifest.modalities
    for number, data in enumerate(opened.source(split)):
        record = decode(data)
        example: dict[str, Any] = {f"{name}_id": record[f"id/{name}"] for name in _IDS}
        for name, modality in modalities.items():
            items = items_of(record, name, opened.files, opened.chunks(split))
            if modality.kind in _BYTES:
                example[name] = [x.tobytes() for x in items]
            else:
                shape = (0, len(modality.names), 0) if modality.kind == "ecg" else (0, len(modality.names))
                example[name] = _stacked(items, shape, number, name)
        yield f"{split}-{number}", example | {"labels": record["labels"], "time": float(record["time"][0])}


def _stacked(items: list[np.ndarray], empty: tuple[int, ...], number: int, name: str) -> np.ndarray:
    if len({x.shape for x in items}) > 1:
        raise UserError(f"record {number} has items of {name} of several lengths; build the data set with one length")
    return np.stack(items).astype(np.float32) if items else np.zeros(empty, np.float32)
