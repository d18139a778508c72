"""Floating-point operations of matrix products and convolutions, counted in the program before any compiler sees it."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from medjax.data.batch import Batch
from medjax.methods import Method


def matmul_flops(fn: Callable, *abstract_args: Any) -> int:
    """FLOPs of the matrix products and convolutions of `fn`; a multiplication and an addition count as two.

    abstract_args: arrays or ShapeDtypeStructs of global shape. The bodies of a scan count as often as they run and of
    a cond the dearest branch; a while loop whose number of rounds only the data tell counts once. What recomputation
    (`jax.checkpoint`) repeats in a gradient counts as often as it is done. Inside `shard_map` the devices' work is
    added up, but for those that do the same. What does not reach a result does not count. Zeros that a convolution pads
    or dilates with count like data.
    """
    jaxpr = jax.make_jaxpr(fn)(*abstract_args).jaxpr
    live, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _of_jaxpr(live)


def model_flops(method: Method, params: Any, state: Any, batch: Batch) -> float:
    """Model FLOPs of one training step on a global batch: the numerator of a model FLOPs utilisation (MFU).

    Three times those of the forward pass, since the backward pass makes two products of each one (PaLM, arXiv
    2204.02311, appendix B), for the encoders and for the objective alike. What is recomputed to save memory does not
    count, nor do the optimizer, norms and activations. Of a frozen tower it is an upper bound: its backward pass is
    skipped in part. The arguments may be abstract; the objective's FLOPs grow with the square of the batch.
    """

    def forward(params, state, batch, key):
        batch = batch.only_valid()
        encoded = method.encode(params, state, batch, key, True)
        loss, _ = method.objective(encoded, params, state, batch, key)
        return loss.mean()

    return 3.0 * matmul_flops(forward, params, state, batch, jax.eval_shape(jax.random.key, 0))


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_of_equation(e) for e in jaxpr.eqns)


def _of_equation(e: core.JaxprEqn) -> int:
    name = e.primitive.name
    if name == "dot_general":
        (contracted, _), _ = e.params["dimension_numbers"]
        lhs = e.invars[0].aval.shape
        return 2 * math.prod(e.outvars[0].aval.shape) * math.prod(lhs[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, out = e.invars[1].aval.shape, e.params["dimension_numbers"].rhs_spec[0]
        return 2 * math.prod(e.outvars[0].aval.shape) * math.prod(kernel) // kernel[out]
    if name.startswith("dot_product_attention_fwd"):  # cuDNN's: scores, and the values weighted by them
        query, key = (v.aval.shape for v in e.invars[:2])
        return 4 * math.prod(query) * key[1 if e.params["layout"] == 0 else 2]
    inner = [_of_jaxpr(j) for j in _inside(e.params)]
    if name == "cond":
        return max(inner)
    return _rounds(e) * sum(inner)


def _rounds(e: core.JaxprEqn) -> int:
    if e.primitive.name == "scan":
        return e.params["length"]
    if e.primitive.name == "shard_map":
        split = {a for spec in e.params["in_specs"] for axes in spec if axes for a in _axes(axes)}
        return math.prod(e.params["mesh"].shape[a] for a in split)
    return 1


def _axes(entry: str | tuple[str, ...]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _inside(params: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs that an equation holds, as values or in tuples."""
    values = [x for v in params.values() for x in (v if isinstance(v, tuple | list) else (v,))]
    return [
        v.jaxpr if isinstance(v, core.ClosedJaxpr) else v
        for v in values
        if isinstance(v, core.Jaxpr | core.ClosedJaxpr)
    ]
