"""What a source of examples is: a schema and a list of studies that are read one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medjax.data.manifest import Finding, Modality
from medjax.data.records import Example


@dataclass(frozen=True)
class Study:
    """A study that can be read: its patient, the split its archive gives it (None: none), and how to read it.

    `read` raises UserError, naming file and cause, where the study cannot be used.
    """

    name: str
    patient: str
    split: str | None
    read: Callable[[], Example]


@dataclass(frozen=True)
class Schema:
    """What the records of a source hold; the fields are those of the manifest."""

    name: str
    source: str
    licence: str
    modalities: dict[str, Modality]
    labels: tuple[str, ...] = ()
    findings: dict[str, Finding] = field(default_factory=dict)
    synthetic: bool = False
    sensitive: bool = True
    patients_known: bool = True
    texts_from_labels: bool = False
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """An archive, or a generator."""

    schema: Schema

    def studies(self) -> Sequence[Study]:
        """All studies, in a fixed order."""
