"""The engine: reductions over a similarity matrix `S[i, j]` that is never stored.

`reduce_pairs` walks `S` tile by tile and keeps, for every row and every column, the statistics of
`medjax.losses.statistics.Stats`; every pairwise objective is a short formula on these. The backward pass recomputes
each tile from the saved log-sum-exps (FlashAttention's idea, for the contrastive matrix), so memory is
O(rows * E + block^2). Over a mesh axis the keys are either gathered ("gather") or sent round a ring together with
their column statistics ("ring"); "dense" is the plain matrix under automatic differentiation, the reference for both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from medjax.losses.collectives import AxisName, all_gather, axis_size, make_varying, ring_shift, varying_axes
from medjax.losses.statistics import Pull, Stats, empty, finish, measure, merge_over_devices
from medjax.losses.tiles import backward_strip, cut, cut_up, forward_strip, pad, paste, walk

IMPLEMENTATIONS = ("auto", "dense", "gather", "ring")
_DENSE_SIZE = 2**22  # 2048 x 2048: 16 MiB a matrix, and keeping it saves computing it again


@dataclass(frozen=True)
class Plan:
    """What to reduce, where, and in what pieces.

    tile: `(theta, queries, keys) -> float32[q, k]`. relation: `(query_rows, key_rows) -> (allowed bool[q, k],
    positive float32[q, k])`; an answer that is not allowed is no candidate, and "softplus" leaves it out. columns:
    whether column statistics are wanted beside those of the rows. wanted: which of
    `medjax.losses.statistics.STATISTICS`; what is not wanted costs nothing.
    """

    tile: Callable
    relation: Callable
    impl: str = "auto"
    block: int = 1024
    axis_name: AxisName = None
    columns: bool = True
    wanted: tuple[str, ...] = ("lse", "positive")

    def resolve(self, queries: int, keys: int) -> "Plan":
        """Replaces "auto" (one dense tile where it is small, else a ring) and a ring of one device."""
        impl, devices = self.impl, axis_size(self.axis_name)
        if impl == "auto":
            impl = "dense" if queries * keys * devices <= _DENSE_SIZE else "ring"
        return replace(self, impl="gather" if impl == "ring" and devices == 1 else impl)


def reduce_pairs(plan: Plan, theta, queries, keys, query_rows: dict, key_rows: dict) -> tuple[Stats, Stats | None]:
    """Row and column statistics of `S[i, j] = plan.tile(theta, queries, keys)`.

    queries, keys: pytrees of arrays `[b, ...]`, this device's rows. query_rows, key_rows: the metadata of
    `plan.relation`, each leaf `[b, ...]`, with a bool `present`. Returns statistics of this device's rows and of its
    own columns (None without `plan.columns`), each over the whole mesh axis. Differentiable in theta, queries, keys.
    """
    plan = plan.resolve(_length(query_rows), _length(key_rows))
    # Replicated scalars become per-device here, outside the custom gradient, so that theirs is summed over the axes.
    theta = make_varying(theta, varying_axes((queries, keys, query_rows, key_rows)))
    if plan.impl == "dense":
        return _dense(plan, theta, queries, keys, query_rows, key_rows)
    return _streamed(plan, theta, queries, keys, query_rows, key_rows)


def _length(rows: dict) -> int:
    return rows["present"].shape[0]


def _own(tree, b: int, axis_name: AxisName):
    """This device's rows of arrays that hold all of them."""
    if axis_name is None:
        return tree
    start = jax.lax.axis_index(axis_name) * b
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, b), tree)


def _dense(plan: Plan, theta, queries, keys, query_rows, key_rows):
    b = _length(key_rows)
    keys, key_rows = all_gather((keys, key_rows), plan.axis_name)
    s_qk = plan.tile(theta, queries, keys)
    allowed, positive = plan.relation(query_rows, key_rows)
    rows = finish(measure(s_qk, allowed, positive, 1, plan.wanted))
    if not plan.columns:
        return rows, None
    columns = merge_over_devices(measure(s_qk, allowed, positive, 0, plan.wanted), plan.axis_name)
    return rows, _own(finish(columns), b, plan.axis_name)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _streamed(plan: Plan, theta, queries, keys, query_rows, key_rows):
    return _forward(plan, theta, queries, keys, query_rows, key_rows)[0]


def _forward(plan: Plan, theta, queries, keys, query_rows, key_rows):
    operands = (theta, queries, keys, query_rows, key_rows)
    axes, n, b = varying_axes(operands), _length(query_rows), _length(key_rows)
    if plan.impl == "gather":
        keys, key_rows = all_gather((keys, key_rows), plan.axis_name)
    q, k = _Cut.of(query_rows, plan.block), _Cut.of(key_rows, plan.block)
    padded, padded_rows = pad((queries, query_rows), q.rows)

    def strip(carry, j):
        rows, held = carry
        keys, key_rows, columns = cut(held, j, k.size)
        rows, columns = forward_strip(plan, theta, padded, padded_rows, rows, keys, key_rows, columns, q.size)
        if plan.impl == "ring":
            return rows, paste(held, ring_shift((keys, key_rows, columns), plan.axis_name), j, k.size)
        return rows, (*held[:2], paste(held[2], columns, j, k.size))

    held = (*pad((keys, key_rows), k.rows), empty(k.rows, plan.wanted, axes))
    carry = make_varying((empty(q.rows, plan.wanted, axes), held), axes)
    rounds = axis_size(plan.axis_name) if plan.impl == "ring" else 1
    rows, (home_keys, home_rows, columns) = walk(strip, carry, k.count, rounds)
    if plan.impl == "ring":
        # The keys are home again. Going on from here spares the backward pass a copy of the arguments.
        operands = (theta, queries, _first(home_keys, b), query_rows, _first(home_rows, b))
    rows, columns = _first(rows, n), _first(columns, k.n)
    if plan.impl == "gather":
        columns = _own(merge_over_devices(columns, plan.axis_name), b, plan.axis_name)
    out = (finish(rows), finish(columns) if plan.columns else None)
    return out, (operands, out)


def _backward(plan: Plan, saved, cotangents):
    (theta, queries, keys, query_rows, key_rows), (rows, columns) = saved
    axes, n = varying_axes(saved[0]), _length(query_rows)
    like = partial(jax.tree.map, lambda x, d: d.astype(x.dtype))
    operands = (theta, queries, keys)
    rows = Pull(rows, cotangents[0])
    columns = Pull(columns, cotangents[1]) if plan.columns else None
    if plan.impl == "gather":
        keys, key_rows, columns = all_gather((keys, key_rows, columns), plan.axis_name)
    q, k = _Cut.of(query_rows, plan.block), _Cut.of(key_rows, plan.block)
    queries, query_rows, rows = pad((queries, query_rows, rows), q.rows)

    def strip(carry, j):
        d_theta, d_queries, d_keys, held = carry
        gradients = (d_theta, d_queries, cut(d_keys, j, k.size))
        gradients = backward_strip(plan, theta, queries, query_rows, rows, *cut(held, j, k.size), gradients, q.size)
        d_theta, d_queries, part = gradients
        return d_theta, d_queries, paste(d_keys, part, j, k.size), held

    def turn(carry, _):
        d_theta, d_queries, d_keys, held = walk(strip, carry, k.count)
        # All at once: the strips' own messages, as in the forward pass, are smaller but make the TPU compiler keep
        # every accumulator twice, on and off the chip.
        d_keys, held = ring_shift((d_keys, held), plan.axis_name)
        return (d_theta, d_queries, d_keys, held), None

    held = pad((keys, key_rows, columns), k.rows)
    carry = make_varying((_zeros(theta), _zeros(queries), _zeros(held[0]), held), axes)
    if plan.impl == "ring":
        carry, _ = jax.lax.scan(turn, carry, length=axis_size(plan.axis_name))
    else:
        carry = walk(strip, carry, k.count)
    d_theta, d_queries, d_keys, _ = carry
    d_queries, d_keys = _first(d_queries, n), _first(d_keys, k.n)
    if plan.impl == "gather" and plan.axis_name is not None:
        d_keys = jax.lax.psum_scatter(d_keys, plan.axis_name, tiled=True)
    return *like(operands, (d_theta, d_queries, d_keys)), None, None


class _Cut(NamedTuple):
    """n rows in `count` blocks of `size`."""

    n: int
    count: int
    size: int

    @classmethod
    def of(cls, rows: dict, block: int) -> "_Cut":
        return cls(_length(rows), *cut_up(_length(rows), block))

    @property
    def rows(self) -> int:
        return self.count * self.size


def _first(tree, n: int):
    return jax.tree.map(lambda x: x[:n], tree)


def _zeros(tree):
    """float32 accumulators for the gradient of `tree`."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


_streamed.defvjp(_forward, _backward)
