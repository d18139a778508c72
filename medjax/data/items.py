"""What stands in records for items that are more than one array: files that are only referred to, and volumes.

An array is kept as it is, under the key `{modality}/{i}`. Beside that key may stand instead
* `{key}@file`, of an index-only data set: uint8[n] of JSON `{"reader", "path", "options", "bytes", "sha256"}`, the path
  relative to the root of the source;
* `{key}@volume/{field}`, the header of a volume, and `{key}@volume/chunks` int64[2], the first and the number of its
  chunks in the file `{key}@volume/file`, uint8[n], which lies beside the shard, so that a crop reads what it needs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.chunks import StoredVolume, encode_volume
from medjax.data.manifest import Split
from medjax.data.readers import reader
from medjax.data.records import RecordFile, decode_text, encode_text
from medjax.data.remote import local_file
from medjax.data.source_files import SourceFiles, checksum
from medjax.data.volumes import Volume
from medjax.errors import UserError

_FILE, _VOLUME = "@file", "@volume/"
_KEY = re.compile(r"([^/]+)/(\d+)((?:@.*)?)")


@dataclass(frozen=True)
class FileItem:
    """An item of a study that lies in a file. reader: its name in `medjax.data.readers.READERS`. options: of the
    reader, as JSON can hold them.
    """

    reader: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The raw item.

        Raises:
          UserError: the file cannot be read.
        """
        return reader(self.reader)(self.path, self.options)


def store(key: str, item: Any, chunks: RecordFile | None) -> dict[str, np.ndarray]:
    """What a record keeps of a raw item. The voxels of a Volume go to the file `chunks`."""
    if not isinstance(item, Volume):
        return {key: item}
    header, boxes = encode_volume(item)
    out = {f"{key}{_VOLUME}{name}": value for name, value in header.items()}
    out[f"{key}{_VOLUME}chunks"] = np.array([chunks.records, len(boxes)], np.int64)
    out[f"{key}{_VOLUME}file"] = encode_text(chunks.name)
    for box in boxes:
        chunks.write(box)
    return out


def refer(key: str, item: FileItem, root: Path) -> dict[str, np.ndarray]:
    """What an index-only record keeps of a file under `root`.

    Raises:
      UserError: the file is missing or lies outside `root`.
    """
    path, root = item.path.resolve(), root.resolve()
    if not path.is_relative_to(root):
        raise UserError(f"file {item.path} lies outside the folder of the source; move it there")
    size, digest = checksum(path)
    kept = {
        "reader": item.reader,
        "path": path.relative_to(root).as_posix(),
        "options": dict(item.options),
        "bytes": size,
        "sha256": digest,
    }
    return {key + _FILE: encode_text(json.dumps(kept, sort_keys=True))}


class ChunkFiles:
    """The files beside the shards of a split that hold the chunks of its volumes."""

    def __init__(self, directory: Path, split: Split):
        self._directory = directory
        self._entries = {s["chunks"]["file"]: s["chunks"] for s in split.shards if s.get("chunks")}
        self._opened: dict[str, Any] = {}

    def read(self, name: str, index: int) -> bytes:
        """One chunk.

        Raises:
          UserError: the manifest does not name the file, or it is damaged.
        """
        if name not in self._entries:
            raise UserError(f"a record names the chunks {name}, which the manifest does not; build the data set again")
        try:
            return self._open(name)[index]
        except (RuntimeError, IndexError) as error:  # ArrayRecord's own checksums
            raise UserError(f"{name} is damaged: {error}") from None

    def _open(self, name: str):
        if name not in self._opened:
            import grain  # and with it JAX, which the processes of a build do without

            path = local_file(self._directory, self._entries[name])
            source = grain.sources.ArrayRecordDataSource([str(path)])
            if len(source) != self._entries[name]["records"]:
                raise UserError(
                    f"{name} holds {len(source)} chunks, its manifest says {self._entries[name]['records']}"
                )
            self._opened[name] = source
        return self._opened[name]


def items_of(
    record: Mapping[str, np.ndarray],
    modality: str,
    files: SourceFiles | None = None,
    chunks: ChunkFiles | None = None,
) -> list[Any]:
    """The raw items of a modality, in order; a volume in chunks as a StoredVolume, which reads voxels when asked.

    files: of the source, which index-only data sets need. chunks: of the split, for volumes.

    Raises:
      UserError: a file is missing, has changed or cannot be read, or there are no `files` to find it among.
    """
    out: list[Any] = []
    while True:
        key = f"{modality}/{len(out)}"
        if key in record:
            out.append(record[key])
        elif key + _FILE in record:
            if files is None:
                raise UserError(
                    "the data set is index-only; say where its source's files lie with config.data.source_dir"
                )
            out.append(files.load(record[key + _FILE]))
        elif f"{key}{_VOLUME}chunks" in record:
            prefix = key + _VOLUME
            out.append(_volume({k[len(prefix) :]: v for k, v in record.items() if k.startswith(prefix)}, chunks))
        else:
            return out


def _volume(kept: dict[str, np.ndarray], chunks: ChunkFiles | None) -> StoredVolume:
    name, (first, count) = decode_text(kept.pop("file")), kept.pop("chunks").tolist()

    def read(index: int) -> bytes:
        if chunks is None or not 0 <= index < count:
            raise UserError(f"chunk {index} of a volume of {count} chunks was asked for; build the data set again")
        return chunks.read(name, first + index)

    return StoredVolume(kept, read)


def count_items(record: Mapping[str, np.ndarray], modality: str) -> int:
    """How many items of a modality a record has, without reading any."""
    return len({_place(k)[1] for k in record if _place(k)[0] == modality})


def keep_items(record: Mapping[str, np.ndarray], modality: str, kept: Sequence[int]) -> dict[str, np.ndarray]:
    """The record with only these items of a modality, in this order."""
    at = {old: new for new, old in enumerate(kept)}
    out = {}
    for key, value in record.items():
        name, number, rest = _place(key)
        if name != modality:
            out[key] = value
        elif number in at:
            out[f"{name}/{at[number]}{rest}"] = value
    return out


def copy_volumes(record: Mapping[str, np.ndarray], chunks: ChunkFiles, to: RecordFile) -> dict[str, np.ndarray]:
    """The record with its volumes' chunks copied to another file."""
    out = dict(record)
    for key in [k for k in record if k.endswith(f"{_VOLUME}file")]:
        prefix = key.removesuffix("file")
        first, count = record[f"{prefix}chunks"].tolist()
        out[key] = encode_text(to.name)
        out[f"{prefix}chunks"] = np.array([to.records, count], np.int64)
        for index in range(first, first + count):
            to.write(chunks.read(decode_text(record[key]), index))
    return out


def _place(key: str) -> tuple[str, int, str]:
    """Modality, number and rest of the key of an item; ("", 0, "") of another key."""
    found = _KEY.fullmatch(key)
    return (found[1], int(found[2]), found[3]) if found else ("", 0, "")
