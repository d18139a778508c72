"""Starting from part of another run's parameters, with an exact account of what was taken."""

import logging
import re
from typing import Any

import jax
import numpy as np

from medjax.errors import UserError

log = logging.getLogger("medjax")


def take_parameters(params: Any, source: Any, include: str) -> Any:
    """`params` with the leaves of `source` whose path matches `include` in full and is in both; the log says which.

    Raises:
      UserError: nothing matches, or a matching leaf has another shape.
    """
    pattern = re.compile(include)
    found = {_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(source)}
    taken: list[str] = []
    wrong: list[str] = []

    def one(path, old):
        name = _name(path)
        new = found.get(name)
        if new is None or not pattern.fullmatch(name):
            return old
        if new.shape != old.shape:
            wrong.append(f"{name}: {list(new.shape)} there, {list(old.shape)} here")
            return old
        taken.append(name)
        return jax.device_put(np.asarray(new, old.dtype), old.sharding)

    out = jax.tree_util.tree_map_with_path(one, params)
    if wrong:
        raise UserError(f"config.warm_start: shapes differ: {'; '.join(wrong)}; use the same encoder in both")
    if not taken:
        raise UserError(f"config.warm_start.include={include!r} matches no parameter of both runs")
    unused = sorted(n for n in found if n not in taken)
    fresh = sorted(_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params) if _name(p) not in taken)
    log.info(
        "warm start: %d parameters taken; left in the source: %s; fresh here: %s",
        len(taken),
        _roots(unused),
        _roots(fresh),
    )
    return out


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _roots(names: list[str]) -> str:
    """The names summed up by their first two parts."""
    counts: dict[str, int] = {}
    for name in names:
        root = "/".join(name.split("/")[:2])
        counts[root] = counts.get(root, 0) + 1
    return ", ".join(f"{root} ({n})" for root, n in counts.items()) or "nothing"
