"""From records to batches with Grain. A position in the data is one number: the global example index.

Example g of the training stream is record `permutation_e(g mod n)` of epoch `e = g div n`. Global batch s holds the
examples `[s B, (s + 1) B)`, of which process p takes its contiguous share; everything random about example g comes from
(seed, g). So neither the number of processes or threads nor a restart changes any batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grain
import numpy as np

from medjax.data import manifest as manifests
from medjax.data.batch import Batch, from_arrays
from medjax.data.examples import Examples, stack
from medjax.data.transforms import Transform, make_transforms
from medjax.errors import UserError, check_choice


@dataclass(frozen=True)
class DataConfig:
    """dir: the data set. modalities: `{name: transform options}`, what is read of it. batch_size: global.
    max_items: items a study may bring per modality (views, sections); the rest are left out, at random in training.
    max_invalid_fraction: share of unreadable examples in a batch beyond which training stops. threads: reading ahead;
    0 reads between steps. verify: compare every shard with its checksum at the start. cache: keep
    decoded records in memory, for data sets that fit.
    """

    dir: str | None
    modalities: dict[str, dict[str, Any]]
    batch_size: int = 128
    max_items: dict[str, int] = field(default_factory=dict)
    max_invalid_fraction: float = 0.05
    threads: int = 4
    verify: bool = False
    cache: bool = False


@dataclass(frozen=True)
class Dataset:
    """An opened data set with its transforms."""

    config: DataConfig
    manifest: manifests.Manifest
    transforms: Mapping[str, Transform]
    directory: Path

    @classmethod
    def open(cls, config: DataConfig) -> "Dataset":
        """Reads the manifest and checks that the files are there.

        Raises:
          UserError: no directory is configured, or it holds no such data set.
        """
        if not config.dir:
            raise UserError("config.data.dir is not set; pass --config.data.dir=DIR, made by medjax.bin.build_dataset")
        directory = Path(config.dir)
        manifest = manifests.load(directory)
        if config.verify:
            manifests.verify(manifest, directory)
        transforms = make_transforms(config.modalities, manifest, directory)
        for name in config.max_items:
            check_choice("modality in config.data.max_items", name, transforms)
        return cls(config, manifest, transforms, directory)

    def source(self, split: str) -> grain.sources.ArrayRecordDataSource:
        """The records of a split, at random access.

        Raises:
          UserError: an unknown split, or a shard with another number of records than the manifest says.
        """
        check_choice("split", split, self.manifest.splits)
        info = self.manifest.splits[split]
        source = grain.sources.ArrayRecordDataSource([str(self.directory / s["file"]) for s in info.shards])
        if len(source) != info.examples:
            raise UserError(
                f"{split} of {self.directory} holds {len(source)} records, its manifest says {info.examples}"
            )
        return source

    def examples(self, split: str) -> Examples:
        """The rows of a split by record number."""
        labels = len(self.manifest.labels)
        return Examples(self.source(split), self.transforms, labels, self.config.max_items, self.config.cache)

    def train(self, seed: int, start: int, batch: int, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """Endless training batches of this process from global example `start`, a multiple of `batch`.

        batch: global size; each Batch holds `batch / processes` examples.
        """
        rows = _share(batch, processes)
        examples = self.examples("train")
        stream = Stream(len(examples), seed, start, batch, process * rows, rows)
        dataset = grain.MapDataset.source(stream).map(Augmented(examples, seed)).batch(rows)
        ahead = 4 * rows if self.config.threads else 0
        options = grain.ReadOptions(num_threads=self.config.threads, prefetch_buffer_size=ahead)
        for arrays in dataset.to_iter_dataset(options):
            yield from_arrays(arrays, process * rows)

    def evaluation(self, split: str, batch: int, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """Every example of a split once, in order, without augmentation; the last batch is padded, `valid` False."""
        rows = _share(batch, processes)
        examples = self.examples(split)
        for first in range(process * rows, len(examples) + process * rows, batch):
            inside = [i < len(examples) for i in range(first, first + rows)]
            arrays = [examples.row(first + i, None) if ok else examples.placeholder() for i, ok in enumerate(inside)]
            yield from_arrays(stack(arrays), process * rows)


def _share(batch: int, processes: int) -> int:
    if batch % processes:
        raise UserError(f"config.data.batch_size={batch} does not divide by {processes} processes")
    return batch // processes


class Stream:
    """Where the training examples of one process come from: position -> (global index, record number)."""

    def __init__(self, records: int, seed: int, start: int, batch: int, first: int, rows: int):
        self._order = grain.MapDataset.range(records).seed(seed).shuffle().repeat()
        self._start, self._batch, self._first, self._rows = start, batch, first, rows

    def __len__(self) -> int:
        return (len(self._order) - self._start) // self._batch * self._rows

    def __getitem__(self, position) -> tuple[int, int]:
        step, row = divmod(int(position), self._rows)
        index = self._start + step * self._batch + self._first + row
        return index, int(self._order[index])

    def __repr__(self) -> str:
        return f"Stream(start={self._start}, rows={self._first}+{self._rows} of {self._batch})"


class Augmented(grain.transforms.Map):
    """Makes rows with random numbers that depend on (seed, global index) alone."""

    def __init__(self, examples: Examples, seed: int):
        self._examples, self._seed = examples, seed

    def map(self, element: tuple[int, int]) -> dict[str, Any]:
        """(global index, record number) -> example arrays."""
        index, record = element
        return self._examples.row(record, np.random.default_rng([self._seed, index]))
