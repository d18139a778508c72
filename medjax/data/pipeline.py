"""From records to batches with Grain. A position in the data is one number: the global example index.

Which record example g of the training stream is, `medjax.data.sampling.sampler.Sampler` says from (seed, g); of a
single data set it is record `permutation_e(g mod n)` of epoch `e = g div n`. A global batch from g on holds the
examples `[g, g + B)`, of which process p takes its contiguous share; everything random about example g comes from
(seed, g). So neither the number of processes, worker processes or threads nor a restart changes any batch, and another
global batch goes on in the same order.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from medjax.config import merge as merged
from medjax.data.batch import Batch, from_arrays
from medjax.data.building.patients import check_disjoint
from medjax.data.examples import Examples, stack
from medjax.data.items import items_of
from medjax.data.manifest import Manifest
from medjax.data.options import DataConfig
from medjax.data.records import decode
from medjax.data.sampling.groups import bucket_items, make_groups
from medjax.data.sampling.ledger import Ledger
from medjax.data.sampling.sampler import Group, Sampler
from medjax.data.sampling.sets import Joined, OpenSet, merge, tokenizer_folder
from medjax.data.transforms import Transform, make_transforms
from medjax.errors import UserError, check_choice
from medjax.storage import is_remote

__all__ = ["DataConfig", "Dataset"]


@dataclass(frozen=True)
class Dataset:
    """One or several opened data sets with their transforms. manifest: of all together. directory: of the one whose
    tokenizer reads the texts.
    """

    config: DataConfig
    manifest: Manifest
    transforms: Mapping[str, Transform]
    directory: Path
    sets: tuple[OpenSet, ...]

    @classmethod
    def open(cls, config: DataConfig, transforms: Mapping[str, Transform] | None = None) -> "Dataset":
        """Reads the manifests and checks that the files are there.

        transforms: of the modalities to read, in place of those that the data sets and `config.modalities` make.

        Raises:
          UserError: no directory is configured, it holds no such data set, or the sets of a mixture do not fit.
        """
        sets = tuple(
            OpenSet.open(name, s, config.verify, config.cache_dir, config.check_files)
            for name, s in config.sets().items()
        )
        manifest = merge(sets)
        if len(sets) > 1:
            check_disjoint([s.directory for s in sets])
        if transforms is None:
            directory = tokenizer_folder(sets, config.modalities)
            transforms = make_transforms(config.modalities, manifest, directory)
        else:
            directory = sets[0].directory
        for name in config.max_items:
            check_choice("modality in config.data.max_items", name, config.modalities)
        for bucket in config.buckets.values():
            for name in bucket.sets:
                check_choice("set in config.data.buckets", name, [s.name for s in sets])
        return cls(config, manifest, transforms, directory, sets)

    def source(self, split: str) -> Joined:
        """The records of a split of all sets, at random access.

        Raises:
          UserError: an unknown split, or a shard with another number of records than the manifest says.
        """
        return Joined([s.source(split) for s in self.sets])

    def raw_items(self, split: str, records: Iterable[int]) -> Iterator[dict[str, list[Any]]]:
        """Yields `{modality: raw items}` of each of some records, as the transforms take them.

        Raises:
          UserError: a record or a file that it refers to cannot be read.
        """
        source, chunks = self.source(split), [s.chunks(split) for s in self.sets]
        for record in records:
            part, at = source.find(record)
            s, arrays = self.sets[part], decode(source.parts[part][at])
            yield {m: items_of(arrays, m, s.files, chunks[part]) for m in self.manifest.modalities}

    def attributes(self, split: str) -> dict[str, np.ndarray]:
        """float32[n] of each of the manifest's attributes for every record of a split, in order; NaN unknown.

        Raises:
          UserError: a record cannot be read.
        """
        names = self.manifest.attributes
        source = self.source(split)
        values = np.full((len(names), len(source)), np.nan, np.float32)
        for i in range(len(source) if names else 0):
            record = decode(source[i])
            for k, name in enumerate(names):
                if f"factor/{name}" in record:
                    values[k, i] = record[f"factor/{name}"][0]
        return dict(zip(names, values, strict=True))

    def examples(self, split: str, bucket: str = "") -> "Rows":
        """The rows of a split by record number, in the shapes of a bucket."""
        transforms, most = self.transforms, self.config.max_items
        if bucket:
            most = bucket_items(self.config, bucket, self.sets)
            options = merged(self.config.modalities, self.config.buckets[bucket].modalities)
            transforms = make_transforms(options, self.manifest, self.directory)
        labels = self.manifest.labels
        return Rows(
            [
                Examples(
                    *(s.source(split), transforms, len(labels), most, self.config.cache),
                    *(s.columns(labels), number, s.files and s.files.decoded(), s.chunks(split)),
                )
                for number, s in enumerate(self.sets)
            ]
        )

    @cached_property
    def groups(self) -> list[list[Group]]:
        """What training draws from, by bucket."""
        return make_groups(self.config, self.sets)

    def ledger(self) -> Ledger:
        """An empty one, for `train`."""
        return Ledger([s.name for s in self.sets], list(self.transforms))

    def stream(self, seed: int, start: int, batch: int, process: int = 0, processes: int = 1) -> grain.IterDataset:
        """What `train` reads, as a Grain pipeline of dicts of arrays."""
        rows = _share(batch, processes)
        config = self.config
        run = config.bucket_examples or batch
        if config.buckets and (run % batch or start % batch):
            raise UserError(
                f"config.data.bucket_examples={run} and example {start} must be multiples of the batch {batch}"
            )
        positions = Stream(Sampler(self.groups, seed, run), start, batch, process * rows, rows)
        self._fetch_ahead(positions, 4 * rows)
        examples = [self.examples("train", name) for name in config.buckets] or [self.examples("train")]
        dataset = grain.MapDataset.source(positions).map(Augmented(examples, seed)).batch(rows)
        ahead = 2 * config.threads  # in batches
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead))
        if not config.workers:
            return dataset
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads its flags when it starts workers, in notebooks too
        return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=2))

    def _fetch_ahead(self, positions: "Stream", count: int) -> None:
        """Remote shards in the order in which the first examples need them."""
        if any(is_remote(s.dir) for s in self.config.sets().values()):
            whole = self.source("train")
            found = [whole.find(positions[i][2]) for i in range(min(count, len(positions)))]
            for number, s in enumerate(self.sets):
                s.fetch_ahead("train", [at for part, at in found if part == number])

    def train(
        self, seed: int, start: int, batch: int, process: int = 0, processes: int = 1, ledger: Ledger | None = None
    ) -> Iterator[Batch]:
        """Endless training batches of this process from global example `start` on.

        batch: global size; each Batch holds `batch / processes` examples. ledger: counts the invalid examples of this
        process as their batches are handed out.
        """
        first = process * _share(batch, processes)
        with contextlib.closing(iter(self.stream(seed, start, batch, process, processes))) as batches:
            for arrays in batches:
                if ledger is not None:
                    ledger.count(arrays["origin"])
                yield from_arrays(arrays, first)

    def first_batch(self, seed: int, batch: int, process: int = 0, processes: int = 1) -> Batch:
        """The first training batch; with buckets one in which every modality has items, as parameters are made for."""
        run = self.config.bucket_examples or batch
        sampler = Sampler(self.groups, seed, run)
        found: dict[int, Batch] = {}
        start = 0
        while len(found) < len(self.groups):
            bucket, _ = sampler(start)
            if bucket not in found:
                dataset = replace(self, config=replace(self.config, workers=0, threads=0))
                with contextlib.closing(dataset.train(seed, start, batch, process, processes)) as batches:
                    found[bucket] = next(batches)
            start += run
        whole, *rest = found.values()
        items = dict(whole.items)
        for other in rest:
            items |= {m: x for m, x in other.items.items() if not items[m].mask.shape[1]}
        return replace(whole, items=items)

    def evaluation(
        self, split: str, batch: int, process: int = 0, processes: int = 1, first: int = 0, last: int | None = None
    ) -> Iterator[Batch]:
        """Every example of a split, or of its rows from `first` to before `last`, once, in order and without
        augmentation; the last batch is padded, `valid` False."""
        rows = _share(batch, processes)
        examples = self.examples(split)
        end = len(examples) if last is None else min(last, len(examples))
        for start in range(first + process * rows, end + process * rows, batch):
            inside = range(start, start + rows)
            arrays = [examples.row(i, None) if i < end else examples.placeholder() for i in inside]
            yield from_arrays(stack(arrays), process * rows)


def _share(batch: int, processes: int) -> int:
    if batch % processes:
        raise UserError(f"config.data.batch_size={batch} does not divide by {processes} processes")
    return batch // processes


class Rows:
    """The rows of the same split of several sets, one set after the other."""

    def __init__(self, parts: list[Examples]):
        self._parts = Joined(parts)

    def __len__(self) -> int:
        return len(self._parts)

    def row(self, record: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """See `Examples.row`."""
        part, index = self._parts.find(record)
        return self._parts.parts[part].row(index, rng)

    def placeholder(self) -> dict[str, Any]:
        """An invalid row of the right shapes."""
        return self._parts.parts[0].placeholder()


class Stream:
    """Where the training examples of one process come from: position -> (global index, bucket, record number)."""

    def __init__(self, sampler: Sampler, start: int, batch: int, first: int, rows: int):
        self._sampler, self._start, self._batch, self._first, self._rows = sampler, start, batch, first, rows

    def __len__(self) -> int:
        return (2**62 - self._start) // self._batch * self._rows

    def __getitem__(self, position) -> tuple[int, int, int]:
        step, row = divmod(int(position), self._rows)
        index = self._start + step * self._batch + self._first + row
        return index, *self._sampler(index)

    def __repr__(self) -> str:
        return f"Stream(start={self._start}, rows={self._first}+{self._rows} of {self._batch})"


class Augmented(grain.transforms.Map):
    """Makes rows with random numbers that depend on (seed, global index) alone. examples: of each bucket."""

    def __init__(self, examples: list[Rows], seed: int):
        self._examples, self._seed = examples, seed

    def map(self, element: tuple[int, int, int]) -> dict[str, Any]:
        """(global index, bucket, record number) -> example arrays."""
        index, bucket, record = element
        return self._examples[bucket].row(record, np.random.default_rng([self._seed, index]))
