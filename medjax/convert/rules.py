"""Tables of weight names: one rule says where a weight lies in a Flax tree, where in a PyTorch state, and how it turns.

A pattern is a name with placeholders, `blocks/block_{i}/mlp/up/kernel`; a placeholder stands for one part of a name
without its separators.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medjax.errors import UserError

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Rule:
    """flax: path in the tree, parts joined by "/". torch: key of the state. transpose: `[in, out]` <-> `[out, in]`."""

    flax: str
    torch: str
    transpose: bool = False

    def under(self, flax: str, torch: str) -> "Rule":
        """The same weight of a module that lies at these prefixes."""
        return Rule(f"{flax}/{self.flax}", f"{torch}.{self.torch}", self.transpose)

    def torch_key(self, path: str) -> str | None:
        """The PyTorch key of a Flax path; None where the rule is for another."""
        return _rename(self._flax_regex, self.torch, path)

    def flax_path(self, key: str) -> str | None:
        """The Flax path of a PyTorch key; None where the rule is for another."""
        return _rename(self._torch_regex, self.flax, key)

    @cached_property
    def _flax_regex(self) -> re.Pattern:
        return _regex(self.flax)

    @cached_property
    def _torch_regex(self) -> re.Pattern:
        return _regex(self.torch)


def linear(flax: str, torch: str) -> tuple[Rule, Rule]:
    """The rules of a dense layer's kernel and bias."""
    return Rule(f"{flax}/kernel", f"{torch}.weight", True), Rule(f"{flax}/bias", f"{torch}.bias")


def norm(flax: str, torch: str) -> tuple[Rule, Rule]:
    """The rules of a layer norm's scale and bias."""
    return Rule(f"{flax}/scale", f"{torch}.weight"), Rule(f"{flax}/bias", f"{torch}.bias")


def to_torch(
    params: Mapping[str, Any], rules: Sequence[Rule], shapes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """The PyTorch state of a Flax tree, float32.

    shapes: `{key: shape}` of the state that is wanted, of PyTorch's own modules.

    Raises:
      UserError: names every weight that is missing, unexpected or of another shape.
    """
    return _convert(flatten(params), rules, Rule.torch_key, shapes, "PyTorch model")


def to_flax(state: Mapping[str, Any], rules: Sequence[Rule], shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The Flax tree of a PyTorch state, float32.

    state: `{key: array}`. shapes: `{path: shape}` of the tree that is wanted, as `flatten` names its leaves.

    Raises:
      UserError: names every weight that is missing, unexpected or of another shape.
    """
    return unflatten(_convert(state, rules, Rule.flax_path, shapes, "Flax method"))


def _convert(
    source: Mapping[str, Any],
    rules: Sequence[Rule],
    rename: Callable[[Rule, str], str | None],
    shapes: Mapping[str, Sequence[int]],
    what: str,
) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    problems = []
    for name, value in source.items():
        rule, new = next(((r, n) for r in rules if (n := rename(r, name)) is not None), (None, None))
        if rule is None or new not in shapes:
            problems.append(f"{name} is not expected")
            continue
        array = np.asarray(value, np.float32)
        array = array.T if rule.transpose else array
        if array.shape != tuple(shapes[new]):
            problems.append(f"{new} has shape {list(array.shape)} and should have {list(shapes[new])}")
        out[new] = np.array(array, order="C")  # not ascontiguousarray, which makes a scalar a vector
    problems += [f"{name} is missing" for name in shapes if name not in out]
    if problems:
        raise UserError(f"the weights do not fit the {what}: {'; '.join(problems)}")
    return out


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a/b/c": leaf}` of nested dicts."""
    out = {}
    for key, value in tree.items():
        out |= flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def _regex(pattern: str) -> re.Pattern:
    literal = _PLACEHOLDER.split(pattern)
    return re.compile("".join(rf"(?P<{x}>[^/.]+)" if i % 2 else re.escape(x) for i, x in enumerate(literal)))


def _rename(regex: re.Pattern, template: str, name: str) -> str | None:
    found = regex.fullmatch(name)
    return template.format(**found.groupdict()) if found else None
