"""The sketch of an encoder's training data, and the raw items of a data set for it."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from medjax.data import Dataset
from medjax.errors import UserError
from medjax.evaluation import sketch
from medjax.methods.encoder import Encoder

_GUESSABLE = ("text", "labs")


def sketch_of(encoder: Encoder, texts: bool) -> sketch.Sketch:
    """Of the training split, with the false matches of the validation split, whose patients are others.

    texts: also what can be guessed, reports and lab values, of sensitive data.

    Raises:
      UserError: the run's data are not here.
    """
    dataset = encoder.dataset()
    kinds = {m: encoder.transforms[m].kind for m in encoder.modalities}
    if dataset.manifest.sensitive and not texts:
        kinds = {m: kind for m, kind in kinds.items() if kind not in _GUESSABLE}
    found = sketch.make(kinds, readable_items(dataset, "train"), secrets.token_bytes(16))
    if "validation" not in dataset.manifest.splits:
        return found
    return replace(found, false=sketch.false_matches(found, readable_items(dataset, "validation")))


def readable_items(dataset: Dataset, split: str) -> Iterator[dict[str, list[Any]]]:
    """Yields the raw items of each study that can be read."""
    at, end = 0, len(dataset.source(split))
    while at < end:
        try:
            for items in dataset.raw_items(split, range(at, end)):
                at += 1
                yield items
        except UserError:
            at += 1
