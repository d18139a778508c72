"""Archives in small: folders of tables and pictures that tests write in an archive's exact layout."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medjax.data.building.build import Options, build_dataset
from medjax.data.building.splits import Splitting


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Writes a CSV file, gzipped where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_picture(path: Path, gray: int) -> Path:
    """Writes an 8 x 8 picture of one gray, lossless where it is a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), gray, np.uint8)).save(path)
    return path


def build(source, directory: Path, split: str = "source", **options):
    """The manifest of a data set built from a source."""
    return build_dataset(source, directory, Options(Splitting(split), **options), lambda done, total: None)


def loaded(item):
    """The raw item, read if it is a file."""
    return item.load() if hasattr(item, "load") else item
