"""Files that somebody sends to `medjax.bin.serve` as raw inputs of an encoder.

What a file is say its first bytes; names count only for what has no mark of its own (a WFDB header, CSV).
"""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.readers import reader
from medjax.data.readers.ecg import EcgOptions, Trace, assemble, check_rate
from medjax.data.readers.npz import open_arrays, read_array
from medjax.data.readers.sniff import READERS_OF, sniff
from medjax.errors import UserError

ACCEPTED = {
    "image": "a picture (PNG, JPEG, TIFF, BMP, WebP or a DICOM file)",
    "ecg": "an ECG (a WFDB .hea with its .dat, EDF, CSV with a column a lead, or NPZ with one array [leads, samples] "
    "in mV)",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SIGNALS = (".dat", ".mat")  # of a WFDB header
_ZIP = b"PK\x03\x04"
_MAX_ARRAY = 2**27  # bytes that an array may unpack to
_TIME = re.compile(r"time(?:\s*[(\[](s|ms|us)[)\]])?", re.IGNORECASE)


def read_uploads(files: Sequence[tuple[str, bytes]], schemas: Mapping[str, Modality]) -> dict[str, Any]:
    """`{modality: raw input}` of the files, at most one for each modality that takes files.

    files: name and content. schemas: of the encoder's modalities.

    Raises:
      UserError: an unsafe name, a file of no accepted type, one that cannot be decoded, or two of one modality.
    """
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="medjax-serve-") as folder:
        paths = [_write(Path(folder), name, content) for name, content in files]
        headers = any(p.suffix == ".hea" for p in paths)
        try:
            for path in paths:
                if headers and path.suffix in _SIGNALS:
                    continue  # read with its header
                kind, name = _kind(path)
                modality = next((m for m, schema in schemas.items() if schema.kind == kind), None)
                if modality is None:
                    raise UserError(f"{path.name} is an {kind}, and this encoder takes none")
                if modality in out:
                    raise UserError(f"{path.name} is a second {modality}; send one of each modality")
                out[modality] = _read(path, name, schemas[modality])
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}/", "")) from None
    return out


def _write(folder: Path, name: str, content: bytes) -> Path:
    if not _NAME.fullmatch(name):
        raise UserError("a file has a name that is not taken; use letters, digits, '.', '-' and '_' alone")
    if not content:
        raise UserError(f"{name} is empty")
    path = folder / name
    if path.exists():
        raise UserError(f"{name} was sent twice")
    path.write_bytes(content)
    return path


def _kind(path: Path) -> tuple[str, str]:
    """Kind of the modality and reader."""
    with path.open("rb") as file:
        if file.read(4) == _ZIP:
            return "ecg", "npz"
    found = sniff(path)
    for kind in ACCEPTED:
        if found in READERS_OF[kind]:
            return kind, found
    hint = "send the .hea file with it" if path.suffix == ".dat" else f"send {' or '.join(ACCEPTED.values())}"
    raise UserError(f"{path.name} is of no type that is taken; {hint}")


def _read(path: Path, name: str, schema: Modality) -> Any:
    if schema.kind == "image":
        return reader(name)(path, {}).tobytes()
    if name == "npz":
        return _npz(path, schema)
    options = {"rate": schema.rate, "leads": schema.names}
    return reader(name)(path, options | (_csv_options(path, schema) if name == "csv_ecg" else {}))


def _csv_options(path: Path, schema: Modality) -> dict[str, Any]:
    """The rate is told by a column of the time, or is that of the encoder; without units the leads are in mV."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = [" ".join(name.split()) for name in file.readline(2**16).rstrip("\r\n").split(",")]
    out: dict[str, Any] = {}
    times = [(name, match) for name in header if (match := _TIME.fullmatch(name))]
    if times:
        name, match = times[0]
        out |= {"time": name, "time_unit": (match[1] or "s").lower()}
    else:
        out["file_rate"] = float(schema.rate)
    leads = [name for name in header if not _TIME.fullmatch(name)]
    return out if any(name.endswith((")", "]")) for name in leads) else out | {"unit": "mV"}


def _npz(path: Path, schema: Modality) -> np.ndarray:
    """float32[C, T]; an array `rate` beside the signal says its samples per second."""
    arrays = open_arrays(path)
    signals = [a for name, a in arrays.items() if name != "rate"]
    leads = len(schema.names)
    if len(signals) != 1 or len(signals[0].shape) != 2 or signals[0].shape[0] != leads:
        raise UserError(f"{path.name} must hold one array [{leads}, T] ({', '.join(schema.names)}), and may hold rate")
    if math.prod(signals[0].shape) * signals[0].dtype.itemsize > _MAX_ARRAY:
        raise UserError(f"{path.name} holds more than {_MAX_ARRAY >> 20} MB; cut it to some seconds")
    rate = float(read_array(arrays["rate"]).reshape(-1)[:1].sum()) if "rate" in arrays else float(schema.rate)
    check_rate(rate, f"ECG {path.name}")
    values = read_array(signals[0]).astype(np.float64)
    traces = [Trace(lead, "mV", rate, row) for lead, row in zip(schema.names, values, strict=True)]
    return assemble(traces, EcgOptions(float(schema.rate), schema.names), f"ECG {path.name}")
