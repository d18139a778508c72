"""Tables of weight names: one rule says where a weight lies in a Flax tree, where in a PyTorch state, and how it turns.

A pattern is a name with placeholders, `blocks/block_{i}/mlp/up/kernel`; a placeholder stands for one part of a name
without its separators. Every rule works in both directions, bit for bit.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from medjax.convert.forms import LINEAR, Form, Joined, Same
from medjax.errors import UserError

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Rule:
    """flax: path in the tree, parts joined by "/", or several paths. torch: key of the state."""

    flax: str | tuple[str, ...]
    torch: str
    form: Form = field(default_factory=Same)

    def under(self, flax: str, torch: str) -> "Rule":
        """The same weight of a module that lies at these prefixes."""
        paths = tuple(f"{flax}/{path}" if flax else path for path in self.paths)
        return Rule(paths if len(paths) > 1 else paths[0], f"{torch}.{self.torch}" if torch else self.torch, self.form)

    @property
    def paths(self) -> tuple[str, ...]:
        """The Flax paths."""
        return (self.flax,) if isinstance(self.flax, str) else self.flax

    def torch_key(self, path: str) -> str | None:
        """The PyTorch key that holds a Flax path; None where the rule is for another."""
        return next((key for r in self._flax_regex if (key := _rename(r, self.torch, path)) is not None), None)

    def flax_paths(self, key: str) -> tuple[str, ...] | None:
        """The Flax paths that a PyTorch key holds; None where the rule is for another."""
        renamed = tuple(_rename(self._torch_regex, path, key) for path in self.paths)
        return None if None in renamed else renamed

    @cached_property
    def _flax_regex(self) -> tuple[re.Pattern, ...]:
        return tuple(_regex(path) for path in self.paths)

    @cached_property
    def _torch_regex(self) -> re.Pattern:
        return _regex(self.torch)


def linear(flax: str, torch: str, bias: bool = True) -> tuple[Rule, ...]:
    """The rules of a dense layer's kernel and bias."""
    kernel = Rule(f"{flax}/kernel", f"{torch}.weight", LINEAR)
    return (kernel, Rule(f"{flax}/bias", f"{torch}.bias")) if bias else (kernel,)


def norm(flax: str, torch: str) -> tuple[Rule, Rule]:
    """The rules of a layer norm's scale and bias."""
    return Rule(f"{flax}/scale", f"{torch}.weight"), Rule(f"{flax}/bias", f"{torch}.bias")


def joined(flax: Sequence[str], weight: str, bias: str) -> tuple[Rule, Rule]:
    """The rules of dense layers that PyTorch keeps as one, with the outputs one after the other."""
    kernels, biases = (tuple(f"{path}/{leaf}" for path in flax) for leaf in ("kernel", "bias"))
    return Rule(kernels, weight, Joined(len(flax), LINEAR)), Rule(biases, bias, Joined(len(flax)))


def under(flax: str, torch: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules of a module that lies at these prefixes."""
    return tuple(rule.under(flax, torch) for rule in rules)


def to_torch(
    tree: Mapping[str, Any], rules: Sequence[Rule], shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, np.ndarray]:
    """The PyTorch state of a Flax tree, float32.

    shapes: `{key: shape}` of the state that is wanted, of PyTorch's own modules; default whatever the tree gives.

    Raises:
      UserError: names every weight that is missing, unexpected or of another shape.
    """
    leaves = {path: np.asarray(x, np.float32) for path, x in flatten(tree).items()}
    out: dict[str, np.ndarray] = {}
    problems = []
    for path in leaves:
        rule, key = next(((r, k) for r in rules if (k := r.torch_key(path)) is not None), (None, None))
        if rule is None:
            problems.append(f"{path} is not expected")
            continue
        parts = rule.flax_paths(key)
        if missing := [part for part in parts if part not in leaves]:
            problems.append(f"{', '.join(missing)} is missing")
        elif key not in out:
            out[key] = _contiguous(rule.form.torch([leaves[part] for part in parts]))
    problems += _differences(out, shapes)
    return _checked(out, problems, "PyTorch model")


def to_flax(
    state: Mapping[str, Any],
    rules: Sequence[Rule],
    shapes: Mapping[str, Sequence[int]],
    what: str = "Flax method",
) -> dict[str, Any]:
    """The Flax tree of a PyTorch state, float32.

    state: `{key: array}`. shapes: `{path: shape}` of the tree that is wanted, as `flatten` names its leaves. what:
    the weights are to fit, for the error.

    Raises:
      UserError: names every weight that is missing, unexpected or of another shape.
    """
    out: dict[str, np.ndarray] = {}
    problems = []
    for key, value in state.items():
        rule, paths = next(((r, p) for r in rules if (p := r.flax_paths(key)) is not None), (None, None))
        if rule is None:
            problems.append(f"{key} is not expected")
            continue
        try:
            leaves = rule.form.flax(np.asarray(value, np.float32))
        except (ValueError, IndexError) as error:
            problems.append(f"{key} of shape {list(np.shape(value))} does not fit: {error}")
            continue
        if unknown := [path for path in paths if path not in shapes]:
            problems.append(f"{key} is not expected ({', '.join(unknown)} is not in the model)")
            continue
        out |= {path: _contiguous(x) for path, x in zip(paths, leaves, strict=True)}
    problems += _differences(out, shapes, rules)
    return unflatten(_checked(out, problems, what))


def _contiguous(x: np.ndarray) -> np.ndarray:
    return np.array(x, order="C")  # not ascontiguousarray, which makes a scalar a vector


def _differences(out, shapes, rules: Sequence[Rule] = ()) -> list[str]:
    """What `out` lacks, has too much, or has in another shape; with `rules`, missing ones by their PyTorch keys too."""
    if shapes is None:
        return []
    problems = []
    for name, shape in shapes.items():
        if name not in out:
            key = next((k for r in rules if (k := r.torch_key(name)) is not None), None)
            problems.append(f"{name} is missing" + (f" (from {key})" if key else ""))
        elif out[name].shape != tuple(shape):
            problems.append(f"{name} has shape {list(out[name].shape)} and should have {list(shape)}")
    return problems + [f"{name} is not expected" for name in out if name not in shapes]


def _checked(out: dict[str, np.ndarray], problems: list[str], what: str) -> dict[str, np.ndarray]:
    if problems:
        raise UserError(f"the weights do not fit the {what}: {'; '.join(dict.fromkeys(problems))}")
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
