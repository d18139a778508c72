"""Symile's cube in one pass: `T[i, j, k] = <x_i, y_j, z_k>` is the same for all three anchors.

A tile of the cube is one matrix product `(x_i * y_j) z_k^T`, and its three marginal log-sum-exps are parts of the three
anchors' denominators. The backward pass takes the sum of the three softmaxes as the gradient of a tile: one product
with z serves x and y together, one with `x_i * y_j` serves z. Tiles are recomputed there, or kept where they fit.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from medjax.losses.collectives import AxisName, make_varying, varying_axes
from medjax.losses.relations import KINDS, equal_ids
from medjax.losses.similarity import product

_LOWEST = -1e30  # the logarithm of nothing, finite so that the difference of two is


class Side(NamedTuple):
    """One modality of the cube: `factor` float32[n, E], and what `log_weights` reads of each row.

    rows: `present` bool[n], `weight` float32[n] (0: enters nothing), `row` int32[n] (global) and `whole` bool[n, 3],
    which of the sample's three modalities are present; with them the ids of `KINDS`, uint32[n, 2], by which tuples
    are left out.
    """

    factor: jax.Array
    rows: dict


@dataclass(frozen=True)
class Cut:
    """How the cube is walked: rows of a tile along x, y and z, and whether its tiles are kept for the backward pass."""

    rows: tuple[int, int, int]
    keep: bool

    @classmethod
    def of(cls, shape: tuple[int, int, int], block: int, keep: bool) -> "Cut":
        """Tiles of at most `block` pairs (i, j) by `block` rows k: several j at once where there are few i."""
        i, k = min(block, shape[0]), min(block, shape[2])
        return cls((i, min(max(1, block // i), shape[1]), k), keep)

    def blocks(self, *sides):
        """Each side's leaves `[n, ...]` as `[blocks, rows, ...]`, padded with zeros."""
        return tuple(jax.tree.map(partial(_blocks, rows=n), s) for s, n in zip(sides, self.rows, strict=True))


def marginals(cut: Cut, x: Side, y: Side, z: Side) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`log sum_jk w_ijk exp(T_ijk)` for every i, and likewise for every j and every k; float32[n] each.

    w is the exponential of `log_weights`; a row whose tuples all have weight zero gets some number near -1e30.
    Differentiable in the factors.
    """
    return _marginals(cut, (x.factor, y.factor, z.factor), (x.rows, y.rows, z.rows))


def merge_over_devices(lse: jax.Array, axis_name: AxisName) -> jax.Array:
    """The log-sum-exp over all devices, where each holds that of its own part."""
    if axis_name is None:
        return lse
    top = jax.lax.pmax(jax.lax.stop_gradient(lse), axis_name)
    return top + jnp.log(jax.lax.psum(jnp.exp(lse - top), axis_name))


def log_weights(x: dict, y: dict, z: dict) -> jax.Array:
    """float32[i, j, k]: the logarithm of how much each tuple counts, from the rows' metadata.

    A tuple needs two present members. One whose present members are all of one patient (group, text) is left out,
    where the rows carry these ids, unless they are of one sample and with it the right answer.
    """
    weights = [
        jnp.where(m["weight"] > 0, jnp.log(jnp.where(m["weight"] > 0, m["weight"], 1.0)), _LOWEST) for m in (x, y, z)
    ]
    here = [m["present"].astype(jnp.int32) for m in (x, y, z)]
    total, count = (_spread(a, b, c) for a, b, c in (weights, here))
    allowed = count >= 2
    kinds = [kind for kind in KINDS if kind in x]
    if kinds:
        answer = _in_every_pair(_same_sample, x, y, z)
        for kind in kinds:
            allowed &= answer | ~_in_every_pair(partial(_same_id, kind=kind), x, y, z)
    return jnp.where(allowed, total, _LOWEST)


def _spread(a_i, b_j, c_k):
    return (a_i[:, None] + b_j[None, :])[:, :, None] + c_k[None, None, :]


def _in_every_pair(same, x: dict, y: dict, z: dict) -> jax.Array:
    return same(x, y, 0, 1)[:, :, None] & same(y, z, 1, 2)[None] & same(x, z, 0, 2)[:, None, :]


def _same_id(a: dict, b: dict, *_, kind: str) -> jax.Array:
    """bool[a, b]: of one id; an absent member agrees with any."""
    return equal_ids(a[kind], b[kind]) | ~a["present"][:, None] | ~b["present"][None, :]


def _same_sample(a: dict, b: dict, i: int, j: int) -> jax.Array:
    """bool[a, b]: of one sample; an absent member is of any sample that lacks its modality, being the same in all."""
    of_a = b["present"][None, :] | ~a["whole"][:, j, None]
    of_b = a["present"][:, None] | ~b["whole"][None, :, i]
    apart = ~(a["present"][:, None] & b["present"][None, :])
    return jnp.where(apart, of_a & of_b, a["row"][:, None] == b["row"][None, :])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _marginals(cut: Cut, factors, rows):
    return _walk(replace(cut, keep=False), factors, rows)[0]


def _walk(cut: Cut, factors, rows):
    """The marginals, and the tiles `[tiles, i, j, k]` if they are kept."""
    sides = cut.blocks(*zip(factors, rows, strict=True))

    def step(lses, at):
        t_ijk = _tile(sides, at)
        pairs = logsumexp(t_ijk, axis=2)
        parts = logsumexp(pairs, axis=1), logsumexp(pairs, axis=0), logsumexp(t_ijk, axis=(0, 1))
        lses = tuple(v.at[b].set(jnp.logaddexp(v[b], p)) for v, b, p in zip(lses, at, parts, strict=True))
        return lses, t_ijk if cut.keep else None

    empty = tuple(jnp.full(side[0].shape[:2], 2 * _LOWEST, jnp.float32) for side in sides)
    lses, tiles = jax.lax.scan(step, make_varying(empty, varying_axes((factors, rows))), _grid(sides))
    return tuple(v.reshape(-1)[: len(f)] for v, f in zip(lses, factors, strict=True)), tiles


def _forward(cut: Cut, factors, rows):
    lses, tiles = _walk(cut, factors, rows)
    return lses, (factors, rows, lses, tiles)


def _backward(cut: Cut, saved, cotangents):
    factors, rows, lses, tiles = saved
    sides = cut.blocks(*zip(factors, rows, strict=True))
    pulls = cut.blocks(*zip(lses, cotangents, strict=True))

    def step(gradients, given):
        at, kept = given
        x, y, z = (side[0][b] for side, b in zip(sides, at, strict=True))
        t_ijk = _tile(sides, at) if kept is None else kept
        g_ijk = jnp.zeros_like(t_ijk)
        for axis, (pull, b) in enumerate(zip(pulls, at, strict=True)):
            lse, d = (jnp.expand_dims(v[b], [a for a in range(3) if a != axis]) for v in pull)
            g_ijk += d * jnp.exp(t_ijk - lse)
        g = g_ijk.reshape(-1, len(z))
        d_pairs = _multiply(g, z).reshape(len(x), len(y), -1)
        parts = jnp.sum(d_pairs * y[None], axis=1), jnp.sum(d_pairs * x[:, None], axis=0), _multiply(g.T, _pairs(x, y))
        return tuple(g.at[b].add(p) for g, b, p in zip(gradients, at, parts, strict=True)), None

    empty = make_varying(tuple(jnp.zeros_like(side[0]) for side in sides), varying_axes((factors, rows, cotangents)))
    gradients, _ = jax.lax.scan(step, empty, (_grid(sides), tiles))
    return tuple(g.reshape(-1, g.shape[-1])[: len(f)] for g, f in zip(gradients, factors, strict=True)), None


def _tile(sides, at):
    """The tile with its weights, float32[i, j, k]."""
    (x, x_rows), (y, y_rows), (z, z_rows) = (
        jax.tree.map(lambda v, b=b: v[b], s) for s, b in zip(sides, at, strict=True)
    )
    t = product(_pairs(x, y), z).reshape(len(x), len(y), len(z))
    return t + log_weights(x_rows, y_rows, z_rows)


def _multiply(g, x):
    return jnp.matmul(g, x, precision=jax.lax.Precision.HIGHEST)


def _pairs(x, y):
    """`x_i * y_j`, `[i * j, E]`."""
    return (x[:, None] * y[None]).reshape(-1, x.shape[1])


def _grid(sides):
    """Every (i, j, k), one a row, as three int32 arrays."""
    sizes = [jax.tree.leaves(side)[0].shape[0] for side in sides]
    return tuple(a.reshape(-1) for a in jnp.meshgrid(*map(jnp.arange, sizes), indexing="ij"))


def _blocks(v, rows: int):
    padded = jnp.pad(v, [(0, -len(v) % rows)] + [(0, 0)] * (v.ndim - 1))
    return padded.reshape(-1, rows, *v.shape[1:])


_marginals.defvjp(_forward, _backward)
