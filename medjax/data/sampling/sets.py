"""The data sets of a run, opened, and the one manifest that describes a mixture of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import grain
import numpy as np

from medjax.data import manifest as manifests
from medjax.data import remote
from medjax.data import tokenizer as tok
from medjax.data.items import ChunkFiles
from medjax.data.manifest import Manifest, Modality, Split
from medjax.data.options import SetConfig
from medjax.data.privacy import licence
from medjax.data.records import sha256
from medjax.data.source_files import SourceFiles
from medjax.errors import UserError, check_choice
from medjax.storage import as_path, is_remote


@dataclass(frozen=True)
class OpenSet:
    """One data set of a run. name: "" where it is the only one. directory: on this machine; that of a remote one is in
    the cache. files: of the source, if it is index-only.
    """

    name: str
    directory: Path
    manifest: Manifest
    weight: float = 1.0
    files: SourceFiles | None = None

    @classmethod
    def open(
        cls, name: str, config: SetConfig, verify: bool, cache_dir: str = "", check_files: str = "first"
    ) -> "OpenSet":
        """Reads the manifest and checks that the shards are there, with `verify` also what they hold. cache_dir,
        check_files: see `DataConfig`.

        Raises:
          UserError: there is no such data set, it is damaged, or it is index-only and its files are nowhere.
        """
        directory = Path(config.dir)
        if is_remote(config.dir):
            directory = remote.adopt(config.dir, manifests.FILE, remote.cache_folder(cache_dir))
        manifest = manifests.load(directory)
        if manifest.index_only and not as_path(config.source_dir or "-").is_dir():
            raise UserError(
                f"data set {manifest.name!r} in {config.dir} is index-only and config.data.source_dir="
                f"{config.source_dir!r} is no folder; name the one that its source's files lie in"
            )
        if verify:
            manifests.verify(manifest, directory)
        files = SourceFiles(config.source_dir, check_files) if config.source_dir else None
        return cls(name, directory, manifest, config.weight, files)

    def source(self, split: str) -> "grain.sources.ArrayRecordDataSource | remote.LazyShards":
        """The records of a split, at random access.

        Raises:
          UserError: an unknown split, or a shard with another number of records than the manifest says.
        """
        check_choice("split", split, self.manifest.splits)
        info = self.manifest.splits[split]
        if remote.origin(self.directory) is not None:
            remote.check_room(self.directory, info.files())
            return remote.LazyShards(self.directory, info.shards)
        source = grain.sources.ArrayRecordDataSource([str(self.directory / s["file"]) for s in info.shards])
        if len(source) != info.examples:
            raise UserError(
                f"{split} of {self.directory} holds {len(source)} records, its manifest says {info.examples}"
            )
        return source

    def fetch_ahead(self, split: str, records: Iterable[int]) -> None:
        """Starts to fetch the shards of a remote data set, first those of these records."""
        source = self.source(split)
        if isinstance(source, remote.LazyShards):
            shards = self.manifest.splits[split].shards
            first = dict.fromkeys(source.shard(r) for r in records)
            order = [shards[i] for i in dict.fromkeys([*first, *range(len(shards))])]
            chunks = [s["chunks"] for s in order if s.get("chunks")]
            remote.fetch_ahead(self.directory, [*order, *chunks])

    def chunks(self, split: str) -> ChunkFiles:
        """The voxels of a split's volumes."""
        return ChunkFiles(self.directory, self.manifest.splits[split])

    def columns(self, labels: Sequence[str]) -> np.ndarray:
        """int[k]: where the labels of this set stand among `labels`."""
        return np.array([labels.index(k) for k in self.manifest.labels], int)


class Joined:
    """Sequences one after the other."""

    def __init__(self, parts: Sequence[Any]):
        self.parts = list(parts)
        self.starts = np.cumsum([0, *(len(p) for p in self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def find(self, index: int) -> tuple[int, int]:
        """(part, index within it)."""
        part = int(np.searchsorted(self.starts, index, "right")) - 1
        return part, int(index - self.starts[part])

    def __getitem__(self, index) -> Any:
        part, at = self.find(int(index))
        return self.parts[part][at]


def merge(sets: Sequence[OpenSet]) -> Manifest:
    """One manifest for a mixture; that of a single set is its own.

    Labels and findings are united by name; a modality is described, and lab values are scaled, by the first set that
    has it. What restricts one set restricts the mixture.

    Raises:
      UserError: a modality is of another kind, with other names, units or rate, in another set.
    """
    if len(sets) == 1:
        return sets[0].manifest
    all_of = [s.manifest for s in sets]
    flags = {f.name: any(getattr(m, f.name) for m in all_of) for f in fields(Manifest) if f.type in (bool, "bool")}
    flags |= {name: all(getattr(m, name) for m in all_of) for name in ("synthetic", "patients_known")}
    return replace(
        all_of[0],
        **flags,
        **{name: _joined(getattr(m, name) for m in all_of) for name in ("name", "source", "licence")},
        modalities=_modalities(sets),
        labels=tuple(dict.fromkeys(k for m in all_of for k in m.labels)),
        findings={k: f for m in reversed(all_of) for k, f in m.findings.items()},
        attributes={k: names for m in reversed(all_of) for k, names in m.attributes.items()},
        splits={split: _split(split, sets) for split in all_of[0].splits},
        notes=tuple(dict.fromkeys(note for m in all_of for note in m.notes)),
        rejected=sum(m.rejected for m in all_of),
        terms=licence.combine(licence.of(m) for m in all_of),
        id_key=_common(m.id_key for m in all_of),
        patient_space=_common(m.patient_space for m in all_of),
        tokenizer=next((m.tokenizer for m in all_of if m.tokenizer), None),
    )


def _common(texts: Iterable[str]) -> str:
    found = set(texts)
    return found.pop() if len(found) == 1 else ""


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(texts))


def _modalities(sets: Sequence[OpenSet]) -> dict[str, Modality]:
    found: dict[str, tuple[OpenSet, Modality]] = {}
    for s in sets:
        for name, schema in s.manifest.modalities.items():
            first, known = found.setdefault(name, (s, schema))
            for what in ("kind", "names", "units", "rate"):
                if getattr(known, what) != getattr(schema, what):
                    raise UserError(
                        f"config.data.mixture: modality {name!r} has {what} {getattr(known, what)!r} in {first.name!r} "
                        f"and {getattr(schema, what)!r} in {s.name!r}; build the sets alike, or under another name"
                    )
    return {name: schema for name, (_, schema) in found.items()}


def _split(name: str, sets: Sequence[OpenSet]) -> Split:
    splits = [s.manifest.splits[name] for s in sets]
    shards = tuple({**x, "file": f"{s.name}/{x['file']}"} for s, p in zip(sets, splits, strict=True) for x in p.shards)
    present, positive = (
        dict(sum((Counter(getattr(p, k)) for p in splits), Counter())) for k in ("present", "positive")
    )
    return Split(shards, sum(p.examples for p in splits), sum(p.patients for p in splits), present, positive)


def tokenizer_folder(sets: Sequence[OpenSet], modalities: Mapping[str, Mapping[str, Any]]) -> Path:
    """The data set whose tokenizer reads the texts of all, or the first where there is none.

    Raises:
      UserError: two sets with texts have different tokenizers, and no common one is named.
    """
    own = [s for s in sets if s.manifest.tokenizer]
    texts = [m for m, o in modalities.items() if not o.get("tokenizer")]
    reading = [
        s for s in own if any(s.manifest.modalities[m].kind == "text" for m in texts if m in s.manifest.modalities)
    ]
    digests = {s.name: tuple(sha256(f) for f in sorted((s.directory / tok.FOLDER).glob("*.*"))) for s in reading}
    if len(set(digests.values())) > 1:
        raise UserError(
            f"the sets {', '.join(digests)} of config.data.mixture have different tokenizers; build them with one "
            "(--tokenizer), or set config.data.modalities.<text>.tokenizer"
        )
    return (reading or own or list(sets))[0].directory
