"""Several means of terms within one objective, for objectives that add up unlike parts."""

from collections.abc import Mapping
from dataclasses import replace

import jax.numpy as jnp

from medjax.losses.base import Term
from medjax.losses.collectives import AxisName, psum


def average(terms: Mapping[str, Term], weight: float, axis_name: AxisName) -> dict[str, Term]:
    """The terms, such that in a group with reduction "sum" they add `weight` times their mean.

    The mean is over terms with a count above 0 on the mesh, so that an absent modality gives the smaller problem.
    """
    alive = sum((psum(term.count, axis_name) > 0).astype(jnp.float32) for term in terms.values())
    share = len(terms) / jnp.maximum(alive, 1.0)
    return {k: replace(t, total=t.total * share, weight=weight / len(terms)) for k, t in terms.items()}
