"""What is left of a score where modalities are missing or their embeddings are damaged.

After the benchmark of sensor failures in multi-modal segmentation (arXiv 2503.18445): entirely missing (EMM), randomly
missing (RMM) and noisy modalities (NM). There numbers of the input are damaged, here those of each modality's
embedding, so that tables without raw items will do; inputs are damaged by `medjax.evaluation.corruptions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from medjax.evaluation.embeddings import EmbeddingTable

PROBABILITIES = (0.2, 0.1, 0.05)
RATIOS = (0.25, 0.5, 0.75)
SALT_AND_PEPPER = (0.05, 0.1, 0.2)
GAUSSIAN = (0.1, 0.2, 0.5)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All but the empty one, the whole first, then by falling size, in the order of `modalities`: 2^n - 1."""
    return [kept for k in range(len(modalities), 0, -1) for kept in combinations(modalities, k)]


def bernoulli_weights(modalities: Sequence[str], p: float) -> np.ndarray:
    """float64[2^n - 1]: the probability of each of `subsets` to be what is there, if each modality is missing with
    probability p, independently, given that one is there.

    With k of n missing it is `p^k (1 - p)^(n - k) / (1 - p^n)`: the empty subset, on which nothing can be scored, is
    left out and the rest normalised. The weight of the full input of four modalities is 0.410, 0.656 and 0.815 for p
    of 0.2, 0.1 and 0.05.
    """
    n = len(modalities)
    missing = np.array([n - len(kept) for kept in subsets(modalities)])
    return p**missing * (1 - p) ** (n - missing) / (1 - p**n)


def expectation(values: Mapping[tuple[str, ...], np.ndarray], modalities: Sequence[str], p: float) -> np.ndarray:
    """float64[r]: of the values float64[r] of all `subsets`, under `bernoulli_weights`."""
    stacked = np.stack([values[kept] for kept in subsets(modalities)])
    return np.tensordot(bernoulli_weights(modalities, p), stacked, axes=1)


def without(table: EmbeddingTable, modalities: Sequence[str], kept: Sequence[str]) -> EmbeddingTable:
    """EMM: the table with those of `modalities` that are not kept absent from every example, their embeddings 0."""
    gone = [m for m in modalities if m not in kept]
    embeddings = {m: np.zeros_like(x) if m in gone else x for m, x in table.embeddings.items()}
    present = {m: np.zeros_like(x) if m in gone else x for m, x in table.present.items()}
    return replace(table, embeddings=embeddings, present=present)


def randomly_missing(
    table: EmbeddingTable, modalities: Sequence[str], kept: Sequence[str], ratio: float, seed: int = 0
) -> EmbeddingTable:
    """RMM: of those of `modalities` that are not kept, each number is 0 with probability `ratio`; what is missing at
    one ratio is so at all higher ones. Vectors keep their norm."""
    out = dict(table.embeddings)
    for i, m in enumerate(modalities):
        if m not in kept:
            gone = np.random.default_rng([seed, 1 + i]).random(out[m].shape) < ratio
            out[m] = _normed(np.where(gone, 0, out[m]), out[m])
    return replace(table, embeddings=out)


def noisy(table: EmbeddingTable, modalities: Sequence[str], how: str, amount: float, seed: int = 0) -> EmbeddingTable:
    """NM: "salt_and_pepper" puts the largest or smallest number of the modality into this share of the places,
    "gaussian" adds noise of this spread, in units of the root mean square of its numbers. Vectors keep their norm."""
    out = dict(table.embeddings)
    for i, m in enumerate(modalities):
        x, rng = out[m], np.random.default_rng([seed, 1 + i])
        if how == "gaussian":
            damaged = x + amount * np.sqrt(np.mean(x**2)) * rng.standard_normal(x.shape)
        else:
            hit, high = rng.random(x.shape) < amount, rng.random(x.shape) < 0.5
            damaged = np.where(hit, np.where(high, x.max(), x.min()), x)
        out[m] = _normed(damaged, x)
    return replace(table, embeddings=out)


def _normed(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    was, now = (np.linalg.norm(a, axis=1, keepdims=True) for a in (like, x))
    return (x * was / np.where(now > 0, now, 1)).astype(np.float32)
