"""Walking a similarity matrix tile by tile on one device: statistics forward, gradients backward.

The unit is a strip: all queries against one block of keys. A strip owns what belongs to its keys, so a caller may
send these on as soon as the strip is done.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from medjax.losses.statistics import Pull, Running, measure, merge


def cut_up(n: int, block: int) -> tuple[int, int]:
    """The number and the size of equal blocks of at most `block` rows that cover n rows."""
    count = max(1, -(-n // block))
    return count, -(-n // count)


def pad(tree, rows: int):
    """Fills up every leaf `[n, ...]` with zeros; padded rows have `present` False, so they enter nothing."""

    def fill(x):
        extra = rows - x.shape[0]
        return jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1)) if extra else x

    return jax.tree.map(fill, tree)


def cut(tree, i, size: int):
    """Block i of every leaf."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * size, size), tree)


def paste(tree, part, i, size: int):
    """`tree` with `part` as its block i."""
    return jax.tree.map(lambda x, p: jax.lax.dynamic_update_slice_in_dim(x, p, i * size, 0), tree, part)


def walk(body: Callable, carry, blocks: int, rounds: int = 1):
    """Runs `carry = body(carry, i)` over the blocks, several times round; a single step needs no loop."""
    if blocks * rounds == 1:
        return body(carry, 0)
    return jax.lax.scan(lambda c, t: (body(c, t % blocks), None), carry, jnp.arange(blocks * rounds))[0]


def forward_strip(plan, theta, queries, query_rows: dict, rows: Running, keys, key_rows: dict, columns: Running, size):
    """Adds a strip's statistics to those of all rows and, with `plan.columns`, of the strip's columns.

    queries, query_rows, rows: padded to whole blocks of `size`. keys, key_rows, columns: one block.
    """

    def body(carry, i):
        rows, columns = carry
        s_qk = plan.tile(theta, cut(queries, i, size), keys)
        allowed, positive = plan.relation(cut(query_rows, i, size), key_rows)
        part = merge(cut(rows, i, size), measure(s_qk, allowed, positive, 1, plan.wanted))
        if plan.columns:
            columns = merge(columns, measure(s_qk, allowed, positive, 0, plan.wanted))
        return paste(rows, part, i, size), columns

    return walk(body, (rows, columns), _count(query_rows, size))


def backward_strip(plan, theta, queries, query_rows: dict, rows: Pull, keys, key_rows: dict, columns, gradients, size):
    """Adds a strip's gradients to `(d_theta, d_queries, d_keys)`, recomputing each tile.

    columns: `Pull` of the strip's columns, or None. d_keys: of the strip's keys alone.
    """
    add = partial(jax.tree.map, lambda total, part: total + part.astype(total.dtype))

    def body(carry, i):
        d_theta, d_queries, d_keys = carry
        s_qk, pull = jax.vjp(plan.tile, theta, cut(queries, i, size), keys)
        allowed, positive = plan.relation(cut(query_rows, i, size), key_rows)
        d_s = cut(rows, i, size).on(s_qk, allowed, positive, 1)
        if columns is not None:
            d_s += columns.on(s_qk, allowed, positive, 0)
        t_theta, t_queries, t_keys = pull(d_s)
        d_queries = paste(d_queries, add(cut(d_queries, i, size), t_queries), i, size)
        return add(d_theta, t_theta), d_queries, add(d_keys, t_keys)

    return walk(body, gradients, _count(query_rows, size))


def _count(rows: dict, size: int) -> int:
    return rows["present"].shape[0] // size
