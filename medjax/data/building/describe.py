"""From the receipts of all shards to what the manifest says of them: counts, distributions, tokenizer, patients."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medjax.data.building.patients import check_apart, write_patients
from medjax.data.building.shards import Receipt
from medjax.data.manifest import SPLITS, Modality, Split
from medjax.data.sources.base import Schema
from medjax.errors import UserError


def describe_splits(receipts: Mapping[str, Sequence[Receipt]], schema: Schema, directory: Path) -> dict[str, Split]:
    """The splits of the manifest; writes the file of patients' hashed ids of each.

    Raises:
      UserError: every study of a split was rejected, or a patient stands in two splits.
    """
    patients = {s: np.unique(np.concatenate([r.patients for r in receipts[s]])) for s in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        check_apart(one, patients[one], other, patients[other])
    out = {}
    for split in SPLITS:
        shards = tuple(r.shard for r in receipts[split] if r.shard)
        if not shards:
            raise UserError(f"every example of the {split} split was rejected; see the list in {directory}")
        present, positive = (_sum(getattr(r, k) for r in receipts[split]) for k in ("present", "positive"))
        out[split] = Split(
            shards=shards,
            examples=sum(shard["records"] for shard in shards),
            patients=len(patients[split]),
            present={m: present[m] for m in schema.modalities},
            positive={name: positive[name] for name in schema.labels},
            patient_ids=write_patients(directory, split, patients[split]),
        )
    return out


def _sum(counters: Iterable[Counter]) -> Counter:
    return sum(counters, Counter())


def describe_modalities(receipts: Sequence[Receipt], schema: Schema) -> dict[str, Modality]:
    """The modalities of the manifest, lab tests with the distributions of the training receipts."""
    return {
        m: describe_labs(x, [r.labs[m] for r in receipts if m in r.labs]) if x.kind == "labs" else x
        for m, x in schema.modalities.items()
    }


def describe_labs(labs: Modality, tables: Sequence[np.ndarray]) -> Modality:
    """The schema of lab tests with their distributions over finite values; tables: float32[n, F] each."""
    table = np.concatenate(tables) if tables else np.zeros((0, len(labs.names)))
    statistics, percentiles = {}, {}
    for name, column in zip(labs.names, table.T, strict=True):
        column = column.astype(np.float64)
        finite = column[np.isfinite(column)]
        at = np.percentile(finite, np.arange(1, 100)) if finite.size else np.zeros(99)
        percentiles[name] = tuple(at.tolist())
        statistics[name] = _statistics(column, finite, at[0], at[-1])
    return replace(labs, statistics=statistics, percentiles=percentiles)


def _statistics(column: np.ndarray, finite: np.ndarray, low: float, high: float) -> tuple[float, ...]:
    """Mean, std, 1st and 99th percentile, share observed.

    Mean and std are of values clipped to the percentiles, so that one slip of the pen does not set the scale.
    """
    if not finite.size:
        return (0.0, 1.0, 0.0, 0.0, 0.0)
    clipped = finite.clip(low, high)
    observed = float(np.mean(~np.isnan(column)))
    return (float(clipped.mean()), float(clipped.std() or 1.0), float(low), float(high), observed)
