"""A split as a table of embeddings, on which every evaluation works."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import jax
import numpy as np

from medjax.data.batch import Batch
from medjax.evaluation.bootstrap import number_patients


@dataclass(frozen=True)
class EmbeddingTable:
    """n examples. embeddings: `{modality: float32[n, E]}`. present: `{modality: bool[n]}`. patients: int[n].
    texts: int[n], equal for equal reports. labels: float32[n, K], NaN unknown. rows: int[n], position in the split.
    ids: uint32[n, 2], hashes of the examples' ids, zero for unknown. attributes: `{name: float32[n]}`, such as age, sex
    or device, NaN unknown; what the values mean says the manifest.
    """

    embeddings: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    patients: np.ndarray
    texts: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    rows: np.ndarray
    ids: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    attributes: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        if not len(self.ids):
            object.__setattr__(self, "ids", np.zeros((len(self.patients), 2), np.uint32))

    def __len__(self) -> int:
        return len(self.patients)

    def where(self, keep: np.ndarray) -> "EmbeddingTable":
        """The examples for which `keep` is true, or those of these positions, in their order."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "label_names"}
        return replace(self, **jax.tree.map(lambda x: x[keep], parts))

    def all_present(self, modalities: Iterable[str]) -> np.ndarray:
        """bool[n]: examples that have all of these modalities."""
        return np.all([self.present[m] for m in modalities], axis=0)


def embed_batches(
    encode: Callable,
    batches: Iterable[Batch],
    label_names: Sequence[str],
    attributes: Mapping[str, np.ndarray] | None = None,
) -> EmbeddingTable:
    """Embeds padded batches; `encode` maps a Batch to something with `pooled` and `present`.

    attributes: of every row of the split, whether it can be read or not (`Dataset.attributes`).
    """
    rows = []
    for batch in batches:
        encoded = encode(batch)
        labels = np.where(batch.targets["labels_mask"], batch.targets["labels"], np.nan)
        ids = batch.ids["patient"], batch.ids["text"], batch.ids["example"]
        row = dict(encoded.pooled), dict(encoded.present), *ids, labels, batch.valid
        rows.append(jax.tree.map(np.asarray, row))
    pooled, present, patients, texts, ids, labels, valid = jax.tree.map(lambda *x: np.concatenate(x), *rows)
    kept = np.flatnonzero(valid)  # the batches are padded at the end alone, so that a position is a row
    return EmbeddingTable(
        {m: x[kept] for m, x in pooled.items()},
        {m: x[kept] for m, x in present.items()},
        number_patients(patients[kept]),
        number_patients(texts[kept]),
        labels[kept],
        tuple(label_names),
        kept,
        ids[kept],
        {k: x[kept] for k, x in (attributes or {}).items()},
    )
