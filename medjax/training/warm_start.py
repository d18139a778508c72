"""Starting from part of another run's parameters, with an exact account of what was taken."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.errors import UserError
from medjax.models.positions import resize_positions
from medjax.sharding import is_main
from medjax.training.selection import path_name, roots

log = logging.getLogger("medjax")

_POSITIONS = re.compile(r"towers/([^/]+)/positions")
Grids = Mapping[str, tuple[int, int]]


@dataclass
class Taken:
    """Paths of parameters. loaded: taken as they are; resized: fitted to another number of patches. missing: asked for
    here, but not in the source. not_asked_for: here, outside the pattern. unused: in the source, and left there.
    misshapen: in both with different shapes, `{path: [shape there, shape here]}`.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    not_asked_for: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    misshapen: dict[str, list[list[int]]] = field(default_factory=dict)

    def write(self, path: Path, **about: Any) -> None:
        """All of it as JSON, and how many there are of each."""
        whole = asdict(self)
        path.write_text(json.dumps(about | {"counts": {k: len(v) for k, v in whole.items()}} | whole, indent=1) + "\n")


def take_weights(
    here: tuple[Any, Any],
    there: tuple[Any, Any],
    include: str,
    where: str = "config.warm_start",
    report: Path | None = None,
    grids: tuple[Grids, Grids] | None = None,
) -> tuple[Any, Any]:
    """`(params, state)` of a method with the leaves of another's whose path matches `include` in full and is in both.

    The running statistics of a tower are matched by the paths of its parameters, `towers/<modality>/...`; no other
    state is taken. The log says what was, `report` is a file that names every path, and `where` what asked for it.

    grids: rows and columns of patches by tower, here and there; tables of positions are then fitted to the one here.

    Raises:
      UserError: nothing matches, or matching leaves have other shapes: all are named.
    """
    weights, source = ((params, {"towers": state.get("batch_stats", {})}) for params, state in (here, there))
    params, stats = _take(weights, source, include, where, report, grids)
    return params, here[1] | ({"batch_stats": stats["towers"]} if stats["towers"] else {})


def patch_grids(method: Any, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Rows and columns of the learnt table of positions of each tower of pictures, as `take_weights` takes them.

    specs: of the modalities' preprocessing.
    """
    out = {}
    for m, module in method.towers.modules.items():
        config = module.config
        if specs[m]["kind"] == "image" and getattr(config, "positions", "") == "learned" and hasattr(config, "patch"):
            side = specs[m]["size"] // config.patch
            out[m] = tuple(config.grid) or (side, side)
    return out


def _take(
    weights: Any, source: Any, include: str, where: str, report: Path | None, grids: tuple[Grids, Grids] | None
) -> Any:
    """Trees apart in a tuple are matched as if they were one."""
    try:
        pattern = re.compile(include)
    except re.error as error:
        raise UserError(f"{where}.include={include!r} is not a regular expression: {error}") from None
    found, taken = _leaves(source), Taken()

    def one(path, old):
        name = path_name(path[1:])
        if not pattern.fullmatch(name):
            taken.not_asked_for.append(name)
            return old
        if name not in found:
            taken.missing.append(name)
            return old
        new, fitted = found[name], None
        if new.shape != old.shape:
            fitted = _fitted(name, new, old.shape, grids)
            if fitted is None:
                taken.misshapen[name] = [list(new.shape), list(old.shape)]
                return old
        (taken.loaded if fitted is None else taken.resized).append(name)
        return jax.device_put(np.asarray(new if fitted is None else fitted, old.dtype), old.sharding)

    out = jax.tree_util.tree_map_with_path(one, weights)
    used = {*taken.loaded, *taken.resized, *taken.misshapen}
    taken.unused = sorted(n for n in found if n not in used)
    if report is not None and is_main():
        taken.write(report, asked_for_by=where, include=include)
    _judge(taken, include, where, report)
    return out


def _judge(taken: Taken, include: str, where: str, report: Path | None) -> None:
    """Raises UserError where not all that matches could be taken; else says what was."""
    if taken.misshapen:
        wrong = "; ".join(f"{n}: {there} there, {here} here" for n, (there, here) in taken.misshapen.items())
        positions = any(map(_POSITIONS.fullmatch, taken.misshapen)) and where == "config.warm_start"
        fix = ", or set config.warm_start.resize_positions=True for pictures of another size" if positions else ""
        raise UserError(f"{where}: shapes differ: {wrong}; use the same encoder in both{fix}")
    if not taken.loaded and not taken.resized:
        raise UserError(f"{where}.include={include!r} matches no parameter of both runs")
    log.info(
        "%s: %d parameters taken, %d of them resized; left in the source: %s; fresh here: %s; missing there: %s%s",
        where,
        len(taken.loaded) + len(taken.resized),
        len(taken.resized),
        roots(taken.unused),
        roots(taken.not_asked_for),
        roots(taken.missing),
        f"; all of them in {report.name}" if report else "",
    )


def _fitted(name: str, table: Any, shape: tuple[int, ...], grids: tuple[Grids, Grids] | None) -> np.ndarray | None:
    """[1, L, D]: a table of positions for the grid here; None where it is none, or the grids are not known."""
    match = _POSITIONS.fullmatch(name)
    if not match or grids is None or not all(match[1] in g for g in grids):
        return None
    here, there = (g[match[1]] for g in grids)
    if table.shape != (1, np.prod(there), shape[-1]) or shape[:2] != (1, np.prod(here)):
        return None
    return np.asarray(resize_positions(jnp.asarray(table[0]), there, here))[None]


def _leaves(weights: Any) -> dict[str, Any]:
    """By path without the place in the tuple."""
    return {path_name(path[1:]): x for path, x in jax.tree_util.tree_leaves_with_path(weights)}
