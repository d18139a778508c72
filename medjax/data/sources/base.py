"""What a source of examples is: a schema and a list of studies that are read one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medjax.data.manifest import Finding, Modality
from medjax.data.privacy.licence import Licence
from medjax.data.records import Example


@dataclass(frozen=True)
class Study:
    """A study that can be read: its patient, the split its archive gives it (None: none), and how to read it.

    `read` raises UserError, naming file and cause, where the study cannot be used. identifiers: strings that name the
    patient (names, record numbers, dates of birth), to be taken out of the study's texts and of messages.
    """

    name: str
    patient: str
    split: str | None
    read: Callable[[], Example]
    identifiers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What the records of a source hold; the fields are those of the manifest.

    terms: where they are not those that `medjax.data.privacy.licence` knows of the identifier `licence`.
    """

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
    patient_space: str = ""
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    terms: Licence | None = None


class Source(Protocol):
    """An archive, or a generator.

    One that gives FileItems also has `root: Path`, the folder that holds all its files: index-only records name them
    relative to it.
    """

    schema: Schema

    def studies(self) -> Sequence[Study]:
        """All studies, in a fixed order."""
