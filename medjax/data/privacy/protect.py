"""A source as strangers may see it: studies and patients by keyed hashes, texts scrubbed, flagged items dealt with."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medjax.data.ids import pseudonym
from medjax.data.items import FileItem
from medjax.data.privacy.hiding import hide
from medjax.data.privacy.masking import BURNED_IN, FACE, mask_item
from medjax.data.privacy.scrub import make_scrubber
from medjax.data.readers import flags_of
from medjax.data.records import Example, decode_text, encode_text
from medjax.data.sources.base import Schema, Source, Study
from medjax.errors import LayoutError, UserError, check_choice

FLAGGED = ("keep", "reject", "mask")


@dataclass(frozen=True)
class Privacy:
    """How a source is protected.

    key: secret that keys the hashes of ids; sensitive data need one. scrub: "basic", "none" or `module:function` (see
    `medjax.data.privacy.scrub`); empty is basic for sensitive data and none for others. flagged: what happens to items
    that their reader warns of (burned-in text, faces): "keep" counts them, "reject" refuses the study, "mask" blanks
    what may show somebody. file_names: true where names of files tell nothing of a patient, so that records may keep
    them.
    """

    key: bytes = b""
    scrub: str = ""
    flagged: str = "keep"
    file_names: bool = False

    def __post_init__(self):
        check_choice("--flagged", self.flagged, FLAGGED)

    def scrubber(self, schema: Schema) -> str:
        """The scrubber of this source."""
        return self.scrub or ("basic" if schema.sensitive else "none")


@dataclass(frozen=True)
class Guard:
    """What a worker needs to protect one study."""

    privacy: Privacy
    schema: Schema
    files: bool

    @property
    def hides(self) -> bool:
        """Whether names are hidden, and not only texts scrubbed."""
        return self.schema.sensitive

    def name(self, text: str) -> str:
        """The text, or what stands for it."""
        return pseudonym(text, self.privacy.key) if self.hides else text

    def error(self, error: UserError, known: Iterable[str] = ()) -> UserError:
        """The error in words that name nobody."""
        if not self.hides:
            return error
        public = (*self.schema.labels, *self.schema.modalities, self.schema.source)
        names = [name for m in self.schema.modalities.values() for name in m.names]
        return UserError(hide(str(error), self.privacy.key, known, (*public, *names, BURNED_IN, FACE)))

    def read(self, study: Study) -> Example:
        """The study as it may be stored; raises UserError as `study.read` does, without names."""
        known = (study.name, study.patient, *study.identifiers)
        try:
            example = study.read()
            ids = (study.name, study.patient, example.example_id, example.group_id, example.patient_id)
            # Short ids, and numbers of rows, say nothing, and are part of many a finding.
            telling = [x for x in ids if len(x) > 3 and not x.startswith("row ")]
            return self._protected(example, (*study.identifiers, *telling))
        except UserError as error:
            raise self.error(error, known) from None

    def _protected(self, example: Example, identifiers: Sequence[str]) -> Example:
        scrub = make_scrubber(self.privacy.scrubber(self.schema))
        files = [x for given in example.items.values() for x in given if isinstance(x, FileItem)]
        flags = tuple(sorted({*example.flags, *(flag for x in files for flag in flags_of(x.reader, x.path))}))
        items: dict[str, list[Any]] = {}
        for modality, given in example.items.items():
            kind = self.schema.modalities[modality].kind
            loaded = [self._load(x, kind) for x in given]
            if kind == "text":
                loaded = [encode_text(scrub(decode_text(x), identifiers)) for x in loaded]
            items[modality] = self._flagged(loaded, kind, flags)
        ids = {k: self.name(getattr(example, k)) for k in ("example_id", "group_id", "patient_id")}
        return dataclasses.replace(example, items=items, flags=flags, **ids)

    def _load(self, item: Any, kind: str) -> Any:
        """Files are read here, where an error that names one is still hidden, unless records may name them."""
        must = kind == "text" or (self.hides and not self.files)
        return item.load() if isinstance(item, FileItem) and must else item

    def _flagged(self, items: list[Any], kind: str, flags: tuple[str, ...]) -> list[Any]:
        if not flags or self.privacy.flagged == "keep" or kind not in ("image", "volume"):
            return items
        if self.privacy.flagged == "reject":
            raise UserError(f"the item is flagged: {', '.join(flags)}; --flagged=keep or mask takes it")
        loaded = (x.load() if isinstance(x, FileItem) else x for x in items)
        return [mask_item(x, kind, flags) for x in loaded]


class ProtectedSource:
    """A source whose studies, examples and errors hold no names where its schema says `sensitive`."""

    def __init__(self, source: Source, guard: Guard):
        self._source, self._guard = source, guard
        self.root: Path | None = getattr(source, "root", None)
        scrub = guard.privacy.scrubber(source.schema)
        texts = any(m.kind == "text" for m in source.schema.modalities.values())
        note = f"Texts were scrubbed of names, dates and numbers by rule ({scrub}), which finds not everything."
        notes = (*source.schema.notes, *((note,) if texts and scrub != "none" else ()))
        self.schema = dataclasses.replace(source.schema, notes=notes)

    def studies(self) -> Sequence[Study]:
        """Those of the source, under their pseudonyms."""
        guard = self._guard
        try:
            studies = self._source.studies()
        except LayoutError:
            raise
        except UserError as error:
            raise guard.error(error) from None
        return [Study(guard.name(s.name), guard.name(s.patient), s.split, partial(guard.read, s)) for s in studies]


def protect(source: Source, privacy: Privacy, index_only: bool = False) -> Source:
    """The source as it may be built from; itself where there is nothing to do.

    Raises:
      UserError: sensitive data without a key, or an index of their files, or an unknown scrubber.
    """
    schema, scrub = source.schema, privacy.scrubber(source.schema)
    make_scrubber(scrub)
    if schema.sensitive and not privacy.key:
        raise UserError("sensitive data need a key for the hashes of their ids; pass --id_key_file, or --nosensitive")
    if schema.sensitive and index_only and not privacy.file_names:
        raise UserError(
            "an index keeps the names of the source's files, and the data are sensitive; copy them into records, or "
            "pass --file_names_are_safe if their names tell nothing of a patient"
        )
    if not schema.sensitive and scrub == "none" and privacy.flagged == "keep":
        return source
    return ProtectedSource(source, Guard(privacy, schema, index_only))


def whois(source: Source, key: bytes, name: str) -> Iterator[str]:
    """What a pseudonym of a protected build stands for, in plain words: for the owner of the key and the source.

    Of a study or patient its name, and, where it cannot be read, why; of a file its path.
    """
    for study in source.studies():
        if name in (pseudonym(study.name, key), pseudonym(study.patient, key)):
            yield f"study {study.name} of patient {study.patient}: {_state(study)}"
    root = getattr(source, "root", None)
    for path in sorted(root.rglob("*")) if root else ():
        if name in {pseudonym(str(p), key) for p in (path, path.relative_to(root), path.name)}:
            yield f"file {path}"


def _state(study: Study) -> str:
    try:
        for items in study.read().items.values():
            for item in items:
                if isinstance(item, FileItem):
                    item.load()
    except UserError as error:
        return str(error)
    return "readable"
