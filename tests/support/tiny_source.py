"""Sources that a test makes up: studies that are at hand, or that cannot be read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import wfdb

from medjax.data.manifest import Modality
from medjax.data.readers.leads import LEADS
from medjax.data.records import Example, encode_text
from medjax.data.sources import Schema, Study
from medjax.errors import UserError

SCHEMA = Schema(
    name="tiny",
    source="made up",
    licence="CC0-1.0",
    modalities={"labs": Modality("labs", ("a", "b"), ("g", "g")), "text": Modality("text")},
    labels=("sick",),
    sensitive=False,
)


@dataclass
class TinySource:
    """A source of given studies."""

    given: Sequence[Study]
    schema: Schema = field(default=SCHEMA)

    def studies(self) -> Sequence[Study]:
        """Those given."""
        return self.given


def study(name: str, split: str | None, patient: str = "", words: str = "a report", **items) -> Study:
    """A readable study; `items` replaces its raw items by modality."""
    patient = patient or f"patient of {name}"
    raw = {"labs": [np.array([len(name), 1.0], np.float32)], "text": [encode_text(words)], **items}
    return Study(name, patient, split, lambda: Example(name, patient, raw, labels={"sick": 1.0}))


def unreadable(name: str, split: str | None) -> Study:
    """A study whose file is damaged."""

    def read():
        raise UserError(f"{name} is damaged")

    return Study(name, f"patient of {name}", split, read)


def write_wfdb(folder: Path, name: str, signal_ct: np.ndarray, leads=LEADS, rate: int = 100, units: str = "mV") -> Path:
    """Writes float[C, T] as a WFDB record of 16-bit samples; returns its path without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=rate,
        units=[units] * len(leads),
        sig_name=list(leads),
        p_signal=np.asarray(signal_ct, np.float64).T,
        fmt=["16"] * len(leads),
        write_dir=str(folder),
    )
    return folder / name
