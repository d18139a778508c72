"""Which parameters are trained, and how fast: by regular expressions that match their paths in full."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from medjax.convert.rules import flatten, unflatten
from medjax.errors import UserError

_BLOCK = re.compile(r"towers/([^/]+)/(?:.*/)?blocks/block_(\d+)/.*")
# What follows the blocks of a tower; all else that is not in a block goes before them.
_AFTER = re.compile(r"towers/[^/]+/(last_norm|pooler|attention_pool)(/.*)?")
_NORM = re.compile(r"towers/([^/]+)/norm(/.*)?")  # after the blocks, but in text towers of the embedded words


def path_name(path: Sequence[Any]) -> str:
    """A leaf's path as "a/b/c"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def parameter_names(params: Any) -> tuple[str, ...]:
    """The paths of all leaves."""
    return tuple(path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))


def roots(names: Iterable[str]) -> str:
    """Paths summed up by their first two parts, with how many there are of each."""
    counts: dict[str, int] = {}
    for name in names:
        root = "/".join(name.split("/")[:2])
        counts[root] = counts.get(root, 0) + 1
    return ", ".join(f"{root} ({n})" for root, n in counts.items()) or "nothing"


def frozen_names(patterns: Iterable[str], names: Sequence[str]) -> frozenset[str]:
    """The paths that `config.optimizer.freeze` matches.

    Raises:
      UserError: a pattern that matches nothing, or nothing left to train.
    """
    frozen = frozenset(n for p in patterns for n in _matching(p, names, "config.optimizer.freeze"))
    if names and len(frozen) == len(names):
        raise UserError(f"config.optimizer.freeze matches every parameter ({roots(names)}); leave some to train")
    return frozen


def trained(params: Mapping[str, Any], frozen: frozenset[str]) -> Mapping[str, Any]:
    """The tree without its frozen leaves; `medjax.config.merge(params, trained)` puts changed ones back."""
    if not frozen:
        return params
    return unflatten({name: leaf for name, leaf in flatten(params).items() if name not in frozen})


def rate_factors(
    multipliers: Iterable[tuple[str, float]], layer_decay: float, names: Sequence[str]
) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied by; those left out take it as it is.

    multipliers: `((pattern, factor), ...)`; of several that match, the first counts. layer_decay: see `layer_factors`;
    both together are multiplied.

    Raises:
      UserError: a pattern that matches nothing, or layer decay without blocks.
    """
    by_pattern: dict[str, float] = {}
    for pattern, factor in multipliers:
        by_pattern.setdefault(pattern, factor)
    chosen = first_match(by_pattern, names, "config.optimizer.lr_multipliers")
    factors = {name: by_pattern[pattern] for name, pattern in chosen.items()}
    if layer_decay != 1.0:
        for name, factor in layer_factors(layer_decay, names).items():
            factors[name] = factors.get(name, 1.0) * factor
    return factors


def first_match(patterns: Iterable[str], names: Sequence[str], where: str) -> dict[str, str]:
    """`{path: pattern}`, the first pattern that matches it, of the paths that one matches.

    Raises:
      UserError: a pattern that matches nothing.
    """
    chosen: dict[str, str] = {}
    for pattern in patterns:
        for name in _matching(pattern, names, where):
            chosen.setdefault(name, pattern)
    return chosen


def layer_factors(decay: float, names: Sequence[str]) -> dict[str, float]:
    """Layer-wise decay of the learning rate (BEiT, arXiv 2106.08254; MAE, arXiv 2111.06377, appendix A).

    In a tower of n blocks, block i gets `decay ** (n - i)`, what comes before the blocks `decay ** (n + 1)`, and what
    comes after them, like everything outside towers, 1. A tower without blocks is left as it is.

    Raises:
      UserError: no tower has blocks.
    """
    depths: dict[str, int] = {}
    for found in filter(None, map(_BLOCK.fullmatch, names)):
        depths[found[1]] = max(depths.get(found[1], 0), int(found[2]) + 1)
    if not depths:
        raise UserError(f"config.optimizer.layer_decay needs a tower of blocks; parameters: {roots(names)}")
    factors = {}
    for name in names:
        root, _, rest = name.partition("/")
        tower = rest.split("/")[0]
        if root != "towers" or tower not in depths or _is_after(name, names):
            continue
        block = _BLOCK.fullmatch(name)
        factors[name] = decay ** (depths[tower] - int(block[2]) if block else depths[tower] + 1)
    return factors


def _is_after(name: str, names: Sequence[str]) -> bool:
    norm = _NORM.fullmatch(name)
    if norm:
        return not any(n.startswith(f"towers/{norm[1]}/words/") for n in names)
    return bool(_AFTER.fullmatch(name))


def _matching(pattern: str, names: Sequence[str], where: str) -> list[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UserError(f"{where}: {pattern!r} is not a regular expression ({error})") from None
    found = [n for n in names if regex.fullmatch(n)]
    if not found:
        raise UserError(f"{where}: {pattern!r} matches no parameter in full; there are {roots(names)}")
    return found
