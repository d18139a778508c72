"""Statistics of the rows (or columns) of a similarity matrix, in parts that merge in any order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from medjax.losses.collectives import AxisName, make_varying, psum

_LOWEST = -1e30  # a finite stand-in for -inf: exp(_LOWEST - m) is 0, never NaN
STATISTICS = ("lse", "answers", "positive", "total", "softplus")


class Stats(NamedTuple):
    """float32[n] each, for the rows or the columns of `S`; None where it was not asked for.

    weight: sum of w_ij, the weights of the answers. count: number of allowed pairs.
    lse: log-sum-exp over the allowed pairs (0 where there are none). answers: `log sum_j w_ij exp(S_ij)` over the
    answers (0 where there are none). positive: sum of w_ij S_ij. total: sum of S_ij over the allowed pairs.
    softplus: sum over the allowed pairs of log(1 + exp(S_ij)), and of log(1 + exp(-S_ij)) where (i, j) is an answer.
    """

    weight: jax.Array
    count: jax.Array
    lse: jax.Array | None = None
    answers: jax.Array | None = None
    positive: jax.Array | None = None
    total: jax.Array | None = None
    softplus: jax.Array | None = None


class ExpSum(NamedTuple):
    """Part of a log-sum-exp: `sum` is relative to exp(max)."""

    max: jax.Array
    sum: jax.Array


class Running(NamedTuple):
    """Statistics of part of each row, by name: those that are exponential sums and those that are plain sums."""

    exps: dict[str, ExpSum]
    sums: dict[str, jax.Array]


def empty(n: int, wanted: tuple[str, ...], axes: frozenset[str]) -> Running:
    """Of n rows of which nothing has been seen."""
    zero = make_varying(jnp.zeros(n, jnp.float32), axes)
    exps = {k: ExpSum(zero + _LOWEST, zero) for k in wanted if k in ("lse", "answers")}
    return Running(exps, dict.fromkeys(("weight", "count", *(k for k in wanted if k not in exps)), zero))


def measure(s_qk: jax.Array, allowed: jax.Array, positive: jax.Array, axis: int, wanted: tuple[str, ...]) -> Running:
    """Statistics of one tile along `axis` (1: of its rows, 0: of its columns)."""
    sums = {"weight": positive, "count": allowed.astype(jnp.float32)}
    if "positive" in wanted:
        sums["positive"] = positive * s_qk
    if "total" in wanted:
        sums["total"] = jnp.where(allowed, s_qk, 0.0)
    if "softplus" in wanted:
        sums["softplus"] = jnp.where(allowed, jax.nn.softplus(jnp.where(positive > 0, -s_qk, s_qk)), 0.0)
    exps = {}
    if "lse" in wanted:
        exps["lse"] = _exp_sum(s_qk, allowed, None, axis)
    if "answers" in wanted:
        exps["answers"] = _exp_sum(s_qk, positive > 0, positive, axis)
    return Running(exps, {k: x.sum(axis) for k, x in sums.items()})


def _exp_sum(s_qk: jax.Array, some: jax.Array, weights: jax.Array | None, axis: int) -> ExpSum:
    top = jax.lax.stop_gradient(jnp.max(jnp.where(some, s_qk, _LOWEST), axis=axis))
    # Where nothing is allowed the difference may overflow: mask before exp as well as after.
    power = jnp.where(some, jnp.exp(jnp.where(some, s_qk - jnp.expand_dims(top, axis), 0.0)), 0.0)
    return ExpSum(top, jnp.sum(power if weights is None else weights * power, axis=axis))


def merge(a: Running, b: Running) -> Running:
    """Two parts of the same rows as one."""
    exps = {}
    for k, x in a.exps.items():
        y = b.exps[k]
        top = jnp.maximum(x.max, y.max)
        exps[k] = ExpSum(top, x.sum * jnp.exp(x.max - top) + y.sum * jnp.exp(y.max - top))
    return Running(exps, {k: x + b.sums[k] for k, x in a.sums.items()})


def merge_over_devices(part: Running, axis_name: AxisName) -> Running:
    """The parts that the devices hold of the same rows, as one, on every device."""
    if axis_name is None:
        return part
    tops = {k: jax.lax.pmax(jax.lax.stop_gradient(x.max), axis_name) for k, x in part.exps.items()}
    relative = {k: x.sum * jnp.exp(x.max - tops[k]) for k, x in part.exps.items()}
    relative, sums = psum((relative, part.sums), axis_name)
    return Running({k: ExpSum(tops[k], relative[k]) for k in tops}, sums)


def finish(r: Running) -> Stats:
    """The statistics, once every part is in."""
    logs = {}
    for k, x in r.exps.items():
        some = x.sum > 0
        logs[k] = jnp.where(some, x.max + jnp.log(jnp.where(some, x.sum, 1.0)), 0.0)
    return Stats(**r.sums, **logs)


class Pull(NamedTuple):
    """What the backward pass knows of each row: its statistics, and their cotangents."""

    stats: Stats
    cotangent: Stats

    def on(self, s_qk: jax.Array, allowed: jax.Array, positive: jax.Array, axis: int) -> jax.Array:
        """dL/dS of a tile through the statistics along `axis`; counts and weights have none."""
        stats, d = (Stats(*(None if x is None else jnp.expand_dims(x, axis) for x in s)) for s in self)
        d_s = jnp.zeros_like(s_qk)
        if stats.lse is not None:
            d_s += d.lse * jnp.where(allowed, jnp.exp(jnp.where(allowed, s_qk - stats.lse, 0.0)), 0.0)
        if stats.answers is not None:
            some = positive > 0
            d_s += d.answers * positive * jnp.where(some, jnp.exp(jnp.where(some, s_qk - stats.answers, 0.0)), 0.0)
        if stats.positive is not None:
            d_s += d.positive * positive
        if stats.total is not None:
            d_s += jnp.where(allowed, d.total, 0.0)
        if stats.softplus is not None:
            d_s += d.softplus * jnp.where(allowed, jax.nn.sigmoid(s_qk) - (positive > 0), 0.0)
        return d_s
