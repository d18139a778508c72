"""Records: one study as named arrays in safetensors, many of them in an ArrayRecord shard.

Keys of a record: `{modality}/{i}` for item i of a modality in its raw form (see `medjax.data.transforms`; what stands
for files and volumes says `medjax.data.items`), `id/{example,group,patient}` uint32[2], `time` float32[1] in days,
`labels` float32[K] (NaN unknown),
`boxes/{finding}` float32[n, 4] (x0, y0, x1, y1 in [0, 1]) and `factor/{name}` float32[1], where a source has them.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter

from medjax.errors import UserError

UNFINISHED = ".unfinished"


@dataclass
class Example:
    """A study before it becomes a record.

    items: raw items by modality: encoded image bytes (uint8[n]), ECG float32[C, T] in mV, lab values float32[F] with
    NaN for missing, text as UTF-8 bytes (uint8[n]), a Volume; or FileItems that read one. labels: `{name: 0, 1 or
    NaN}`. boxes: `{finding: float32[n, 4]}`. factors: further known numbers, such as the latent state of a phantom.
    """

    example_id: str
    patient_id: str
    items: Mapping[str, list[Any]]
    group_id: str = ""
    time: float = 0.0
    labels: Mapping[str, float] = field(default_factory=dict)
    boxes: Mapping[str, np.ndarray] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


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


class RecordFile:
    """Writes an ArrayRecord file under a temporary name; it gets its own when it is complete.

    As a context manager it leaves nothing behind where it was not finished.
    """

    def __init__(self, path: Path):
        self._path, self._temporary = path, temporary(path)
        self._writer = ArrayRecordWriter(str(self._temporary), "group_size:1")  # random access
        self.name, self.records = path.name, 0

    def __enter__(self) -> "RecordFile":
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            self._writer.close()
            self._temporary.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Appends one record."""
        self._writer.write(data)
        self.records += 1

    def finish(self) -> dict[str, Any]:
        """Closes the file and names it; returns its entry in a manifest: file, records, bytes, sha256."""
        self._writer.close()
        self._writer = None
        return {"file": self._path.name, "records": self.records} | publish(self._temporary, self._path)


def temporary(path: Path) -> Path:
    """Where a file is written until it is complete: a new name each time, as two machines may write the same file."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")


def publish(written: Path, path: Path) -> dict[str, Any]:
    """Gives a complete file its name in one step, so that a kill or a power cut leaves all of it or nothing; returns
    its bytes and sha256.
    """
    with written.open("rb") as f:
        os.fsync(f.fileno())
    described = {"bytes": written.stat().st_size, "sha256": sha256(written)}
    written.replace(path)
    return described


def write_file(path: Path, data: bytes) -> dict[str, Any]:
    """Writes a whole file in one step; returns its file, bytes and sha256."""
    written = temporary(path)
    written.write_bytes(data)
    return {"file": path.name} | publish(written, path)


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
