"""Approximate search by FAISS (Johnson, Douze and Jégou, arXiv 1702.08734), and what it misses of exact search."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from medjax.errors import UserError
from medjax.evaluation.search import top_k


def nearest(queries: np.ndarray, gallery: np.ndarray, k: int, description: str) -> np.ndarray:
    """int64[n, k]: columns of the k candidates with the largest inner products that the index finds, best first; -1
    where it finds fewer.

    queries: float32[n, E]. gallery: float32[g, E]. description: as FAISS's `index_factory` reads it, such as "HNSW32",
    "IVF256,Flat" or "Flat", which is exact. An index that must be trained is trained on the gallery.

    Raises:
      UserError: FAISS is not installed, cannot read the description, or cannot build such an index of this gallery.
    """
    try:
        import faiss
    except ImportError:
        raise UserError("FAISS is not installed; pip install faiss-cpu, or leave the index out") from None
    gallery = np.ascontiguousarray(gallery, np.float32)
    try:
        index = faiss.index_factory(gallery.shape[1], description, faiss.METRIC_INNER_PRODUCT)
        index.train(gallery)
        index.add(gallery)
    except RuntimeError as error:
        why = re.split(r"failed: |\.cpp:\d+: ", str(error).strip())[-1]  # without the place in FAISS's source
        raise UserError(f"FAISS cannot build {description!r} of {len(gallery)} candidates: {why}") from None
    return index.search(np.ascontiguousarray(queries, np.float32), k)[1]


def found_share(queries: np.ndarray, gallery: np.ndarray, k: int, description: str) -> np.ndarray:
    """float64[n]: of each query's k nearest by exact search the share that the index finds.

    A candidate that scores the same as the k-th counts as one of the k nearest.
    """
    k = min(k, len(gallery))
    found = nearest(queries, gallery, k, description)
    last = top_k(queries, gallery, k)[0][:, -1:]
    scores = jnp.einsum("ne,nke->nk", queries, gallery[found], precision=jax.lax.Precision.HIGHEST)
    spread = 1e-5 * np.abs(last).clip(1e-3)
    return ((found >= 0) & (np.asarray(scores) >= last - spread)).mean(axis=1)
