"""Records: one study as named arrays in safetensors, many of them in an ArrayRecord shard.

Keys of a record: `{modality}/{i}` for item i of a modality in its raw form (see `medjax.data.transforms`),
`id/{example,group,patient}` uint32[2], `time` float32[1] in days, `labels` float32[K] (NaN unknown),
`boxes/{finding}` float32[n, 4] (x0, y0, x1, y1 in [0, 1]) and `factor/{name}` float32[1], where a source has them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter

from medjax.errors import UserError


@dataclass
class Example:
    """A study before it becomes a record.

    items: raw items by modality: encoded image bytes (uint8[n]), ECG float32[C, T] in mV, lab values float32[F] with
    NaN for missing, text as UTF-8 bytes (uint8[n]). labels: `{name: 0, 1 or NaN}`. boxes: `{finding: float32[n, 4]}`.
    factors: further known numbers, such as the latent state of a phantom.
    """

    example_id: str
    patient_id: str
    items: Mapping[str, list[np.ndarray]]
    group_id: str = ""
    time: float = 0.0
    labels: Mapping[str, float] = field(default_factory=dict)
    boxes: Mapping[str, np.ndarray] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)


def encode_text(text: str) -> np.ndarray:
    """uint8[n]: text as a raw item."""
    return np.frombuffer(text.encode(), np.uint8)


def decode_text(raw: np.ndarray) -> str:
    """The inverse of `encode_text`."""
    return raw.tobytes().decode()


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A record as bytes."""
    return safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()})


def decode(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a record.

    Raises:
      UserError: the bytes are not a record.
    """
    try:
        return safetensors.numpy.load(data)
    except Exception as error:  # safetensors raises several unrelated types
        raise UserError(f"not a medjax record ({len(data)} bytes): {error}") from None


def items_of(record: Mapping[str, np.ndarray], modality: str) -> list[np.ndarray]:
    """The raw items of a modality, in order."""
    out = []
    while (key := f"{modality}/{len(out)}") in record:
        out.append(record[key])
    return out


class ShardWriter:
    """Writes records to `{stem}-{i:05d}.array_record` files of at most `per_shard` records each."""

    def __init__(self, directory: Path, stem: str, per_shard: int = 4096):
        self._directory, self._stem, self._per_shard = directory, stem, per_shard
        self._writer: ArrayRecordWriter | None = None
        self.shards: list[dict] = []

    def write(self, data: bytes) -> None:
        """Appends one record."""
        if self._writer is None or self.shards[-1]["records"] == self._per_shard:
            self.close()
            name = f"{self._stem}-{len(self.shards):05d}.array_record"
            self._writer = ArrayRecordWriter(str(self._directory / name), "group_size:1")  # random access
            self.shards.append({"file": name, "records": 0})
        self._writer.write(data)
        self.shards[-1]["records"] += 1

    def close(self) -> None:
        """Finishes the open shard and notes its size and checksum."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        path = self._directory / self.shards[-1]["file"]
        self.shards[-1] |= {"bytes": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
