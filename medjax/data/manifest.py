"""The manifest of a data set: what its records hold, how they were split, and whether the files are all there."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medjax.config import build
from medjax.data import remote
from medjax.data.privacy.licence import Licence
from medjax.data.records import sha256, write_file
from medjax.errors import UserError
from medjax.storage import local_path

FILE = "manifest.json"
FORMAT = "medjax-records-1"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Modality:
    """What the raw items of one modality are.

    kind: the reader and transform family ("image", "ecg", "labs", "text"). names: leads of an ECG, or lab tests, in
    the order of the array. units: of each. rate: samples per second. statistics: per lab test over the training
    split: mean, std, low (1st percentile), high (99th), observed (share). percentiles: per lab test the 1st to the
    99th, over the training split; not the extremes, which are single patients' values.
    """

    kind: str
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    rate: float | None = None
    statistics: dict[str, tuple[float, ...]] = field(default_factory=dict)
    percentiles: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A label that can be asked for in words.

    positive, negative: prompts for its presence and absence. seen_in: modalities that show it, empty if unknown.
    joint: true if it shows only in all of `seen_in` together, and so stands apart from the macro average.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    seen_in: tuple[str, ...] = ()
    joint: bool = False


@dataclass(frozen=True)
class Split:
    """One split: its shard files (file, records, bytes, sha256, and under "chunks" the same of a file beside it that
    holds the voxels of its volumes) and counts. patient_ids: the file of its patients' hashed ids.
    """

    shards: tuple[dict, ...]
    examples: int
    patients: int
    present: dict[str, int]
    positive: dict[str, int]
    patient_ids: dict[str, Any] = field(default_factory=dict)

    def files(self) -> list[dict]:
        """The entries of all its files: shards, voxels beside them, ids of patients."""
        chunks = [s["chunks"] for s in self.shards if s.get("chunks")]
        return [*self.shards, *chunks, *([self.patient_ids] if self.patient_ids else [])]


@dataclass(frozen=True)
class Manifest:
    """A data set. patients_known: false where every example counts as a patient of its own. texts_from_labels: true
    where the texts were made from the labels, so that who learns from the texts has seen the labels.
    index_only: records refer to files of the source and need its folder. patient_space: what the patients' ids are ids
    of; the same id in another space is another patient. terms: of the licence, in fields. id_key: fingerprint of the
    secret that keys the ids, empty where they have none; the ids of two data sets may be compared where it is the
    same. attributes: what is known of a patient or of how a study was made (sex, age, view, site, device) and kept in
    records as `factor/{name}`: the names of its values, from 0 on, or none where it is a number.
    """

    name: str
    source: str
    licence: str
    synthetic: bool
    sensitive: bool
    patients_known: bool
    modalities: dict[str, Modality]
    labels: tuple[str, ...]
    findings: dict[str, Finding]
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()
    rejected: int = 0
    tokenizer: str | None = None
    texts_from_labels: bool = False
    terms: Licence | None = None
    id_key: str = ""
    index_only: bool = False
    patient_space: str = ""
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    format: str = FORMAT

    def save(self, directory: Path) -> None:
        """Writes manifest.json, all of it or nothing."""
        write_file(directory / FILE, (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())

    def digest(self) -> str:
        """SHA-256 of the manifest, and through its checksums of every record."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def modality(self, name: str) -> Modality:
        """The schema of a modality."""
        if name not in self.modalities:
            raise UserError(f"data set {self.name!r} has no modality {name!r}; it has {', '.join(self.modalities)}")
        return self.modalities[name]


def load(directory: str | Path) -> Manifest:
    """Opens a data set: reads its manifest and checks that its files are there.

    Raises:
      UserError: no data set there, another format, or shard files that are missing or of another size.
    """
    manifest = read(directory)
    _check_files(manifest, Path(directory))
    return manifest


def read(directory: str | Path) -> Manifest:
    """Reads the manifest alone, of a data set or of a run, which keeps a copy.

    Raises:
      UserError: there is none, or it has another format.
    """
    directory = local_path(directory, "this program")
    path = directory / FILE
    if not path.is_file():
        raise UserError(
            f"no data set at {directory}: {FILE} is missing; make one with python -m medjax.bin.build_dataset"
        )
    try:
        raw: Mapping[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); build the data set again") from None
    if raw.get("format") != FORMAT:
        raise UserError(f"{path} has format {raw.get('format')!r}, this version reads {FORMAT!r}; build it again")
    return build(Manifest, raw, str(path))


def _files(manifest: Manifest) -> Iterator[dict]:
    for split in manifest.splits.values():
        yield from split.files()


def _check_files(manifest: Manifest, directory: Path) -> None:
    # An ArrayRecord reader gives zero records, not an error, for a missing file.
    for entry in _files(manifest):
        path, size = directory / entry["file"], remote.size(directory, entry["file"])
        if size is None:
            raise UserError(f"{path} of data set {manifest.name!r} is missing; build the data set again")
        if size != entry["bytes"]:
            raise UserError(
                f"{path} has {size} bytes and the manifest says {entry['bytes']}; "
                "it is damaged, build the data set again"
            )


def verify(manifest: Manifest, directory: str | Path) -> None:
    """Reads every file and compares its checksum.

    Raises:
      UserError: a file differs from the manifest.
    """
    for entry in _files(manifest):
        path = remote.local_file(Path(directory), entry)
        if sha256(path) != entry["sha256"]:
            raise UserError(f"{path} differs from its checksum; it is damaged, build the data set again")
