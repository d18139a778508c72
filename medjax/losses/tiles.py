"""Walking a similarity matrix tile by tile on one device: statistics forward, gradients backward."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from medjax.losses.statistics import Pull, Running, measure, merge


class Tiling(NamedTuple):
    """Padded operands and the grid of tiles. Padded rows have `present` False, so they enter nothing."""

    queries: object
    keys: object
    query_rows: dict
    key_rows: dict
    shape: tuple[int, int]  # before padding
    block: tuple[int, int]

    @classmethod
    def of(cls, queries, keys, query_rows: dict, key_rows: dict, block: int) -> "Tiling":
        """Cuts `[n, ...]` queries and `[k, ...]` keys into blocks of at most `block` rows."""
        n, k = query_rows["present"].shape[0], key_rows["present"].shape[0]
        bq, bk = min(block, n), min(block, k)
        padded = _pad(queries, n, bq), _pad(keys, k, bk), _pad(query_rows, n, bq), _pad(key_rows, k, bk)
        return cls(*padded, (n, k), (bq, bk))

    def at(self, i, j):
        """The operands `(queries, keys, query_rows, key_rows)` of tile (i, j)."""
        bq, bk = self.block
        return (
            _cut(self.queries, i, bq),
            _cut(self.keys, j, bk),
            _cut(self.query_rows, i, bq),
            _cut(self.key_rows, j, bk),
        )

    def pad(self, tree, side: int):
        """Pads per-row arrays of side 0 (queries) or 1 (keys) to whole blocks."""
        return _pad(tree, self.shape[side], self.block[side])

    def unpad(self, tree, side: int):
        """Undoes `pad`."""
        return jax.tree.map(lambda x: x[: self.shape[side]], tree)

    def walk(self, body: Callable, carry):
        """Runs `carry = body(carry, i, j)` over the tiles; a single tile needs no loop."""
        rows, columns = (-(-n // block) for n, block in zip(self.shape, self.block, strict=True))
        if rows * columns == 1:
            return body(carry, 0, 0)

        def step(carry, t):
            return body(carry, t // columns, t % columns), None

        return jax.lax.scan(step, carry, jnp.arange(rows * columns))[0]


def scan_forward(plan, theta, tiling: Tiling, rows: Running, columns: Running) -> tuple[Running, Running]:
    """Adds the tiles' statistics to those of the rows and, with `plan.columns`, of the columns."""
    bq, bk = tiling.block

    def body(carry, i, j):
        rows, columns = carry
        q, k, q_rows, k_rows = tiling.at(i, j)
        s_qk = plan.tile(theta, q, k)
        allowed, positive = plan.relation(q_rows, k_rows)
        rows = _paste(rows, merge(_cut(rows, i, bq), measure(s_qk, allowed, positive, 1, plan.wanted)), i, bq)
        if plan.columns:
            columns = _paste(
                columns, merge(_cut(columns, j, bk), measure(s_qk, allowed, positive, 0, plan.wanted)), j, bk
            )
        return rows, columns

    rows, columns = tiling.walk(body, (tiling.pad(rows, 0), tiling.pad(columns, 1)))
    return tiling.unpad(rows, 0), tiling.unpad(columns, 1)


def scan_backward(plan, theta, tiling: Tiling, rows: Pull, columns: Pull | None, gradients):
    """Adds the tiles' gradients to `(d_theta, d_queries, d_keys)`, recomputing each tile."""
    bq, bk = tiling.block
    rows, columns = tiling.pad(rows, 0), tiling.pad(columns, 1)
    add = partial(jax.tree.map, lambda total, part: total + part.astype(total.dtype))

    def body(carry, i, j):
        d_theta, d_queries, d_keys = carry
        q, k, q_rows, k_rows = tiling.at(i, j)
        s_qk, pull = jax.vjp(plan.tile, theta, q, k)
        allowed, positive = plan.relation(q_rows, k_rows)
        d_s = _cut(rows, i, bq).on(s_qk, allowed, positive, 1)
        if plan.columns:
            d_s += _cut(columns, j, bk).on(s_qk, allowed, positive, 0)
        t_theta, t_queries, t_keys = pull(d_s)
        d_queries = _paste(d_queries, add(_cut(d_queries, i, bq), t_queries), i, bq)
        d_keys = _paste(d_keys, add(_cut(d_keys, j, bk), t_keys), j, bk)
        return add(d_theta, t_theta), d_queries, d_keys

    d_theta, d_queries, d_keys = gradients
    carry = (d_theta, tiling.pad(d_queries, 0), tiling.pad(d_keys, 1))
    d_theta, d_queries, d_keys = tiling.walk(body, carry)
    return d_theta, tiling.unpad(d_queries, 0), tiling.unpad(d_keys, 1)


def _pad(tree, n: int, block: int):
    extra = -n % block
    if not extra:
        return tree
    return jax.tree.map(lambda x: jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1)), tree)


def _cut(tree, i, block: int):
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * block, block), tree)


def _paste(tree, part, i, block: int):
    return jax.tree.map(lambda x, p: jax.lax.dynamic_update_slice_in_dim(x, p, i * block, 0), tree, part)
