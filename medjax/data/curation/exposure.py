"""Which training examples a run has drawn: exact, since the order of a run is a function of its seed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.data.curation.inspection import scan
from medjax.data.manifest import Manifest
from medjax.data.pipeline import Dataset
from medjax.data.sampling.sampler import Sampler


def find(directory: Path, manifest: Manifest, kind: str, ids: Sequence[np.ndarray]) -> dict[str, list[int]]:
    """`{split: record numbers}` of what has one of these ids. kind: "patient", "example" or "group"; ids: uint32[2]."""
    wanted = {x.tobytes() for x in ids}
    return {
        split: [i for i, r in enumerate(scan(directory, manifest, split)) if r[f"id/{kind}"].tobytes() in wanted]
        for split in manifest.splits
    }


def draws(dataset: Dataset, seed: int, batch: int, records: Sequence[int], examples: int) -> np.ndarray:
    """int64[k], sorted: the global example indices below `examples` at which one of the training records was drawn.

    batch: the global batch of the run, which matters only where batches come from buckets. Records count through the
    sets of a mixture in order. Looks at every index: some ten microseconds each.
    """
    wanted = frozenset(records)
    sampler = Sampler(dataset.groups, seed, dataset.config.bucket_examples or batch)
    return np.array([g for g in range(examples if wanted else 0) if sampler(g)[1] in wanted], np.int64)
