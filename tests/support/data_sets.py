"""Data sets that a test builds beside the phantom, and what compares streams of batches."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from tiny_source import SCHEMA, TinySource, study

from medjax.data import Batch
from medjax.data.building.build import Options, build_dataset
from medjax.data.records import encode_text

TRAINING = 12


def build_reports(directory: Path, tokenizer: Path) -> Path:
    """Twelve reports for training, every third with two texts; the label "sick" is 1 for all, and no other is known."""
    schema = replace(SCHEMA, name="reports", modalities={"text": SCHEMA.modalities["text"]})
    splits = ["train"] * TRAINING + ["validation", "test"]
    texts = [[encode_text(f"report {i} {k}") for k in range(1 + (i % 3 == 0))] for i in range(len(splits))]
    studies = [study(f"report {i}", split, text=texts[i]) for i, split in enumerate(splits)]
    for one in studies:
        read = one.read
        object.__setattr__(one, "read", lambda read=read: _only_text(read()))
    options = Options(tokenizer=str(tokenizer))
    build_dataset(TinySource(studies, schema), directory, options, lambda done, total: None)
    return directory


def _only_text(example):
    example.items = {"text": example.items["text"]}
    return example


def damaged_copy(directory: Path, copy: Path) -> Path:
    """A copy of a data set with two flipped bits in its first training shard, which cost two records."""
    shutil.copytree(directory, copy)
    path = copy / "train-00000.array_record"
    data = bytearray(path.read_bytes())
    for share in (0.3, 0.7):
        data[int(len(data) * share)] ^= 1
    path.write_bytes(data)
    return copy


def ids(batches: Iterable[Batch]) -> list[tuple[int, ...]]:
    """The ids of the valid examples in order."""
    return [tuple(i) for b in batches for i in b.ids["example"][b.valid].tolist()]


def assert_equal(a, b) -> None:
    """Two trees of arrays are the same, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)
