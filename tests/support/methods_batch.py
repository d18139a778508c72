"""A small batch of every kind of modality, with gaps, for the tests of methods."""

from dataclasses import replace

import jax
import numpy as np

from medjax.data.batch import Batch, Items

SPECS = {
    "image": {"kind": "image"},
    "ecg": {"kind": "ecg"},
    "labs": {"kind": "labs"},
    "text": {"kind": "text", "vocab_size": 30},
}
BLOCKS = {"width": 8, "depth": 1, "heads": 2}


def make_batch(rng, rows: int = 6, items: int = 2, modalities=("image", "labs", "text")) -> Batch:
    """Pictures [8, 8, 1], ECGs [2, 16], 3 lab values, texts of 5 tokens; row 0 is complete, the rest has gaps."""
    n = (rows, items)
    values = {
        "image": rng.normal(size=(*n, 8, 8, 1)).astype(np.float32),
        "ecg": rng.normal(size=(*n, 2, 16)).astype(np.float32),
        "labs": {
            "value": rng.normal(size=(*n, 3)).astype(np.float32),
            "observed": (rng.random((*n, 3)) < 0.7).astype(np.float32),
        },
        "text": {
            "tokens": rng.integers(1, 30, (*n, 5)).astype(np.int32),
            "lengths": rng.integers(2, 6, n).astype(np.int32),
        },
    }
    masks = {m: rng.random(n) < 0.7 for m in modalities}
    for mask in masks.values():
        mask[0] = True
    ids = {k: rng.integers(1, 2**31, (rows, 2)).astype(np.uint32) for k in ("example", "group", "patient", "text")}
    return Batch(
        {m: Items(values[m], masks[m]) for m in modalities},
        ids,
        np.zeros(rows, np.float32),
        np.ones(rows, bool),
        {},
        np.arange(rows, dtype=np.int32),
    )


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """Some rows of a batch, which keep their global row numbers."""
    return jax.tree.map(lambda x: x[start:stop], batch)


def complete(batch: Batch) -> Batch:
    """The batch without gaps."""
    return replace(batch, items={m: replace(x, mask=np.ones_like(x.mask)) for m, x in batch.items.items()})
