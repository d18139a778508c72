"""Starting from part of another run's parameters, with an exact account of what was taken."""

import logging
import re
from typing import Any

import jax
import numpy as np

from medjax.errors import UserError
from medjax.training.selection import path_name, roots

log = logging.getLogger("medjax")


def take_weights(
    here: tuple[Any, Any], there: tuple[Any, Any], include: str, where: str = "config.warm_start"
) -> tuple[Any, Any]:
    """`(params, state)` of a method with the leaves of another's whose path matches `include` in full and is in both.

    The running statistics of a tower are matched by the paths of its parameters, `towers/<modality>/...`; no other
    state is taken. The log says what was, and `where` what asked for it.

    Raises:
      UserError: nothing matches, or a matching leaf has another shape.
    """
    weights, source = ((params, {"towers": state.get("batch_stats", {})}) for params, state in (here, there))
    params, stats = _take(weights, source, include, where)
    return params, here[1] | ({"batch_stats": stats["towers"]} if stats["towers"] else {})


def _take(weights: Any, source: Any, include: str, where: str) -> Any:
    """Trees apart in a tuple are matched as if they were one."""
    pattern = re.compile(include)
    found = _leaves(source)
    taken: list[str] = []
    wrong: list[str] = []

    def one(path, old):
        name = path_name(path[1:])
        new = found.get(name)
        if new is None or not pattern.fullmatch(name):
            return old
        if new.shape != old.shape:
            wrong.append(f"{name}: {list(new.shape)} there, {list(old.shape)} here")
            return old
        taken.append(name)
        return jax.device_put(np.asarray(new, old.dtype), old.sharding)

    out = jax.tree_util.tree_map_with_path(one, weights)
    if wrong:
        raise UserError(f"{where}: shapes differ: {'; '.join(wrong)}; use the same encoder in both")
    if not taken:
        raise UserError(f"{where}.include={include!r} matches no parameter of both runs")
    unused = sorted(n for n in found if n not in taken)
    fresh = sorted(n for n in _leaves(weights) if n not in taken)
    log.info(
        "%s: %d parameters taken; left in the source: %s; fresh here: %s",
        where,
        len(taken),
        roots(unused),
        roots(fresh),
    )
    return out


def _leaves(weights: Any) -> dict[str, Any]:
    """By path without the place in the tuple."""
    return {path_name(path[1:]): x for path, x in jax.tree_util.tree_leaves_with_path(weights)}
