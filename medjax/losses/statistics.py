"""Statistics of the rows (or columns) of a similarity matrix, in parts that merge in any order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from medjax.losses.collectives import AxisName, make_varying, psum

_LOWEST = -1e30  # a finite stand-in for -inf: exp(_LOWEST - m) is 0, never NaN


class Stats(NamedTuple):
    """float32[n] each, for the rows or the columns of `S`.

    lse: log-sum-exp over the allowed pairs (0 where there are none). positive: sum of w_ij S_ij over the answers.
    total: sum of S_ij over the allowed pairs. weight: sum of w_ij. count: number of allowed pairs.
    """

    lse: jax.Array
    positive: jax.Array
    total: jax.Array
    weight: jax.Array
    count: jax.Array


class Running(NamedTuple):
    """Statistics of part of each row; `sum` is relative to exp(max)."""

    max: jax.Array
    sum: jax.Array
    positive: jax.Array
    total: jax.Array
    weight: jax.Array
    count: jax.Array


def empty(n: int, axes: frozenset[str]) -> Running:
    """Of n rows of which nothing has been seen."""
    zero = make_varying(jnp.zeros(n, jnp.float32), axes)
    return Running(zero + _LOWEST, zero, zero, zero, zero, zero)


def measure(s_qk: jax.Array, allowed: jax.Array, positive: jax.Array, axis: int) -> Running:
    """Statistics of one tile along `axis` (1: of its rows, 0: of its columns)."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(allowed, s_qk, _LOWEST), axis=axis))
    # Where nothing is allowed the difference may overflow: mask before exp as well as after.
    relative = jnp.where(allowed, s_qk - jnp.expand_dims(top, axis), 0.0)
    power = jnp.where(allowed, jnp.exp(relative), 0.0)
    return Running(
        top,
        power.sum(axis),
        jnp.sum(positive * s_qk, axis=axis),
        jnp.sum(jnp.where(allowed, s_qk, 0.0), axis=axis),
        positive.sum(axis),
        allowed.sum(axis).astype(jnp.float32),
    )


def merge(a: Running, b: Running) -> Running:
    """Two parts of the same rows as one."""
    top = jnp.maximum(a.max, b.max)
    total = a.sum * jnp.exp(a.max - top) + b.sum * jnp.exp(b.max - top)
    return Running(top, total, *(x + y for x, y in zip(a[2:], b[2:], strict=True)))


def merge_over_devices(part: Running, axis_name: AxisName) -> Running:
    """The parts that the devices hold of the same rows, as one, on every device."""
    if axis_name is None:
        return part
    top = jax.lax.pmax(jax.lax.stop_gradient(part.max), axis_name)
    return Running(top, *psum((part.sum * jnp.exp(part.max - top), *part[2:]), axis_name))


def finish(r: Running) -> Stats:
    """The statistics, once every part is in."""
    some = r.count > 0
    lse = jnp.where(some, r.max + jnp.log(jnp.where(some, r.sum, 1.0)), 0.0)
    return Stats(lse, r.positive, r.total, r.weight, r.count)


class Pull(NamedTuple):
    """What the backward pass knows of each row: its log-sum-exp and the cotangents of its statistics."""

    lse: jax.Array
    d_lse: jax.Array
    d_positive: jax.Array
    d_total: jax.Array

    @classmethod
    def of(cls, stats: Stats, cotangent: Stats) -> "Pull":
        """From the statistics and their cotangents; counts have none."""
        return cls(stats.lse, cotangent.lse, cotangent.positive, cotangent.total)

    def on(self, s_qk: jax.Array, allowed: jax.Array, positive: jax.Array, axis: int) -> jax.Array:
        """dL/dS of a tile through the statistics along `axis`."""
        lse, d_lse, d_positive, d_total = (jnp.expand_dims(x, axis) for x in self)
        softmax = jnp.where(allowed, jnp.exp(jnp.where(allowed, s_qk - lse, 0.0)), 0.0)
        return d_lse * softmax + d_positive * positive + jnp.where(allowed, d_total, 0.0)
