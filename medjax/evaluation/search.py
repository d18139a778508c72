"""Exact search in galleries of any size: a block of scores at a time, the gallery spread over local devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from medjax.errors import UserError
from medjax.evaluation import metrics
from medjax.losses.similarity import product

# (queries, a tree of [q, ...]; candidates [k, E]) -> float32[q, k]
Score = Callable[[Any, jax.Array], jax.Array]
_ROWS = 64  # sizes are rounded up to it, so that galleries of nearly one size share their programs


def top_k(queries: Any, gallery: np.ndarray, k: int, block: int = 4096, score: Score = product):
    """The k best candidates of every query, best first; of equal scores the lowest index first.

    queries: float32[n, E], or whatever tree of [n, ...] `score` takes. gallery: float32[g, E]. score: traceable, by
    default the inner product. Returns scores float32[n, k] and indices int64[n, k]. Each device holds its share of the
    gallery and at most block x block scores.

    Raises:
      UserError: k is not in 1..g.
    """
    if not 1 <= k <= len(gallery):
        raise UserError(f"k must be between 1 and the {len(gallery)} candidates, got {k}")
    mesh, n = _mesh(), len(jax.tree.leaves(queries)[0])
    block = min(block, _up(-(-len(gallery) // mesh.size), _ROWS))
    at_once = min(block, _up(n, _ROWS))
    with jax.set_mesh(mesh):
        shared = _spread(gallery, mesh, block)
        found = []
        for start in range(0, n, at_once):
            part = _part(queries, slice(start, start + at_once), at_once, mesh)
            found.append(_search(part, shared, len(gallery), k=k, block=block, score=score, mesh=mesh))
        scores, indices = (np.concatenate([np.asarray(f[i]) for f in found])[:n] for i in range(2))
    return scores, indices.astype(np.int64)


@partial(jax.jit, static_argnames=("k", "block", "score", "mesh"))
def _search(queries, gallery: jax.Array, count: int, *, k: int, block: int, score: Score, mesh: Mesh):
    def local(queries, share: jax.Array, count: jax.Array):
        first = jax.lax.axis_index("gallery") * len(share)

        def step(best, i):
            scores = score(queries, jax.lax.dynamic_slice_in_dim(share, i * block, block))
            scores = jnp.where(scores == 0, 0.0, scores)  # top_k sorts -0 below 0
            index = first + i * block + jnp.arange(block)
            scores = jnp.where((index < count)[None, :], scores, -jnp.inf)
            return _best(best, (scores, jnp.broadcast_to(index[None, :], scores.shape)), k), None

        rows = len(jax.tree.leaves(queries)[0])
        start = jnp.full((rows, k), -jnp.inf), jnp.zeros((rows, k), jnp.int32)
        best, _ = jax.lax.scan(step, start, jnp.arange(len(share) // block))
        scores, index = jax.lax.all_gather(best, "gallery", axis=1, tiled=True)
        return _best((scores, index), (scores[:, :0], index[:, :0]), k)

    everywhere, spread = jax.P(), jax.P("gallery")
    specs = (everywhere, spread, everywhere)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=everywhere, check_vma=False)(
        queries, gallery, count
    )


def _best(left, right, k: int):
    """The k best of both; what stands on the left has the lower index and wins a tie, as `top_k` is stable."""
    scores, index = (jnp.concatenate([a, b], axis=1) for a, b in zip(left, right, strict=True))
    scores, place = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(index, place, axis=1)


def ranks(
    score: Score,
    queries: Any,
    gallery: np.ndarray,
    query_groups: np.ndarray,
    gallery_groups: np.ndarray,
    at_once: int = 2**24,
) -> np.ndarray:
    """The rank of each query's best right candidate, float64[n]; see `medjax.evaluation.metrics.ranks`.

    A candidate is right if its group, int[g] from 0, is that of the query, int[n]. Counted from as many whole rows of
    scores as `at_once` scores allow, and at least `_ROWS` of them; `score` need not be traceable.
    """
    mesh, n = _mesh(), len(query_groups)
    rows = min(_up(max(at_once // len(gallery), 1), _ROWS), _up(n, _ROWS))
    with jax.set_mesh(mesh):
        candidates = _spread(gallery, mesh, _ROWS)
        padded = np.full(len(candidates), -1, np.int32)
        padded[: len(gallery)] = gallery_groups
        right, out = jax.device_put(padded, NamedSharding(mesh, jax.P("gallery"))), []
        for start in range(0, n, rows):
            where = slice(start, start + rows)
            part, groups = _part((queries, np.asarray(query_groups, np.int32)), where, rows, mesh)
            out.append(np.asarray(_count(jnp.asarray(score(part, candidates)), groups, right)))
    return np.concatenate(out)[:n].astype(np.float64)


@jax.jit
def _count(scores: jax.Array, query_groups: jax.Array, gallery_groups: jax.Array) -> jax.Array:
    scores = jnp.where((gallery_groups >= 0)[None, :], scores, -jnp.inf)
    return metrics.ranks(scores, query_groups[:, None] == gallery_groups[None, :])


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("gallery",), axis_types=(AxisType.Auto,))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _spread(gallery: np.ndarray, mesh: Mesh, block: int) -> jax.Array:
    """The gallery over the devices, filled up with zeros to whole blocks on each."""
    total = _up(len(gallery), block * mesh.size)
    padded = np.concatenate([gallery, np.zeros((total - len(gallery), *gallery.shape[1:]), gallery.dtype)])
    return jax.device_put(padded, NamedSharding(mesh, jax.P("gallery")))


def _part(tree: Any, where: slice, rows: int, mesh: Mesh) -> Any:
    """These rows on every device, filled up with the first."""

    def cut(x):
        part = np.asarray(x)[where]
        filled = np.concatenate([part, np.broadcast_to(part[:1], (rows - len(part), *part.shape[1:]))])
        return jax.device_put(filled, NamedSharding(mesh, jax.P()))

    return jax.tree.map(cut, tree)
