"""What a score must beat to mean something: pairs torn apart, and what age, sex and device alone give away."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medjax.evaluation.embeddings import EmbeddingTable
from medjax.evaluation.probe import Features, ProbeResult, linear_probe


def shuffled(table: EmbeddingTable, seed: int = 0) -> EmbeddingTable:
    """The table with the embeddings of every modality dealt out anew among the examples that have it, so that nothing
    of an example belongs together; labels, texts and patients stay."""
    out = {}
    for i, (m, x) in enumerate(table.embeddings.items()):
        there = np.flatnonzero(table.present[m])
        out[m] = x.copy()
        out[m][there] = x[np.random.default_rng([seed, i]).permutation(there)]
    return replace(table, embeddings=out)


def attribute_probe(
    tables: Mapping[str, EmbeddingTable],
    label_names: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
    modalities: Sequence[str],
) -> ProbeResult:
    """A linear probe that sees no embedding: the attributes (sex, age, view, site, device) and which modalities are
    there. What it scores, an encoder may owe to the same shortcut.

    tables: "train", "validation" and "test". attributes: the manifest's.
    """
    features = {k: attribute_features(t, attributes, modalities) for k, t in tables.items()}
    return linear_probe(features, tuple(label_names))


def attribute_features(
    table: EmbeddingTable, attributes: Mapping[str, Sequence[str]], modalities: Sequence[str]
) -> Features:
    """Numbers as they are with a flag where they are unknown, named values one column each, and presence."""
    columns = [table.present[m].astype(np.float32) for m in modalities]
    for name, values in table.attributes.items():
        known = np.isfinite(values)
        if names := attributes.get(name, ()):
            columns += [(values == k).astype(np.float32) for k in range(len(names))]
        else:
            centre = np.float32(np.mean(values[known])) if known.any() else np.float32(0)
            columns += [np.where(known, values, centre), known.astype(np.float32)]
    return Features(np.stack(columns, axis=1), table.labels, table.patients)
