"""A split as a table of embeddings, on which every evaluation works."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from medjax.data.batch import Batch
from medjax.evaluation.bootstrap import number_patients


@dataclass(frozen=True)
class EmbeddingTable:
    """n examples. embeddings: `{modality: float32[n, E]}`. present: `{modality: bool[n]}`. patients: int[n].
    texts: int[n], equal for equal reports. labels: float32[n, K], NaN unknown. rows: int[n], position in the split.
    """

    embeddings: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    patients: np.ndarray
    texts: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.patients)

    def where(self, keep: np.ndarray) -> "EmbeddingTable":
        """The examples for which `keep` is true."""
        return EmbeddingTable(
            {m: x[keep] for m, x in self.embeddings.items()},
            {m: x[keep] for m, x in self.present.items()},
            self.patients[keep],
            self.texts[keep],
            self.labels[keep],
            self.label_names,
            self.rows[keep],
        )

    def all_present(self, modalities: Iterable[str]) -> np.ndarray:
        """bool[n]: examples that have all of these modalities."""
        return np.all([self.present[m] for m in modalities], axis=0)


def embed_batches(encode: Callable, batches: Iterable[Batch], label_names: Sequence[str]) -> EmbeddingTable:
    """Embeds padded batches; `encode` maps a Batch to something with `pooled` and `present`."""
    rows = []
    for batch in batches:
        encoded = encode(batch)
        labels = np.where(batch.targets["labels_mask"], batch.targets["labels"], np.nan)
        row = (
            dict(encoded.pooled),
            dict(encoded.present),
            batch.ids["patient"],
            batch.ids["text"],
            labels,
            batch.valid,
        )
        rows.append(jax.tree.map(np.asarray, row))
    pooled, present, patients, texts, labels, valid = jax.tree.map(lambda *x: np.concatenate(x), *rows)
    pooled, present = ({m: x[valid] for m, x in part.items()} for part in (pooled, present))
    numbers = number_patients(patients[valid]), number_patients(texts[valid])
    return EmbeddingTable(pooled, present, *numbers, labels[valid], tuple(label_names), np.flatnonzero(valid))
