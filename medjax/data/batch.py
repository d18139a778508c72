"""The batch: what the pipeline hands to a method, with static shapes and every absence marked by a mask."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Items:
    """One modality of a batch.

    value: an array `[B, N, ...]`, or a dict of such arrays, as the modality's encoder expects; zeros where absent.
    mask: bool[B, N]. N counts items: views of a study, sentences of a report, slices, regions, instances of a bag.
    """

    value: Any
    mask: Any

    @property
    def present(self):
        """bool[B]: whether the example has the modality at all."""
        return self.mask.any(axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """B examples.

    items: `{modality: Items}`. ids: `{"example", "group", "patient", "text": uint32[B, 2]}`, 64-bit hashes, zero for
    unknown; a group is a scan or study, text is the hash of the normalised report. time: float32[B], days, NaN unknown.
    valid: bool[B], false for padding and for examples that could not be read. targets: `{"labels": float32[B, K],
    "labels_mask": bool[B, K], ...}`. row: int32[B], the row in the global batch, which random keys fold in.
    """

    items: Mapping[str, Items]
    ids: Mapping[str, Any]
    time: Any
    valid: Any
    targets: Mapping[str, Any]
    row: Any

    @property
    def size(self) -> int:
        """B."""
        return self.valid.shape[0]

    def only_valid(self) -> "Batch":
        """Folds `valid` into every mask, so that invalid examples have no modality and no label."""
        items = {m: replace(x, mask=x.mask & self.valid[:, None]) for m, x in self.items.items()}
        targets = dict(self.targets)
        if "labels_mask" in targets:
            targets["labels_mask"] = targets["labels_mask"] & self.valid[:, None]
        return replace(self, items=items, targets=targets)

    def select(self, modalities) -> "Batch":
        """The batch with only these modalities."""
        return replace(self, items={m: x for m, x in self.items.items() if m in set(modalities)})


def from_arrays(arrays: Mapping[str, Any], first_row: int = 0) -> Batch:
    """A Batch from stacked example dicts; `first_row` is the global row of its first example."""
    items = {m: Items(x["value"], x["mask"]) for m, x in arrays["items"].items()}
    b = arrays["valid"].shape[0]
    row = np.arange(first_row, first_row + b, dtype=np.int32)
    return Batch(items, arrays["ids"], arrays["time"], arrays["valid"], arrays["targets"], row)
