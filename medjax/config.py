"""Configuration files in plain Python: `get_config(arg)` makes a ConfigDict, dataclasses check it.

A recipe is a file with `get_config(arg: str | None) -> ConfigDict`. `parse_arg` reads what stands after the colon of
`--config=configs/x.py:width=64,small`; `build` turns a sub-tree into a validated frozen dataclass.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import ml_collections

from medjax.errors import UserError, suggest

T = TypeVar("T")


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads `"width=64,small,name=x"` into the types of `defaults`; a bare word is True for a bool option.

    Raises:
      UserError: an option without a default, named with the nearest valid one, or a value of the wrong type.
    """
    out = dict(defaults)
    for piece in filter(None, (arg or "").split(",")):
        key, given, text = piece.partition("=")
        if key not in defaults:
            raise UserError(f"unknown config argument {key!r}; {suggest(key, defaults)}")
        kind = type(defaults[key])
        try:
            out[key] = _read(text, kind) if given else _read("true", kind)
        except ValueError:
            raise UserError(f"config argument {key}={text!r} is not of type {kind.__name__}") from None
    return ml_collections.ConfigDict(out)


def _read(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    return text if kind in (str, type(None)) else kind(text)


def build(cls: type[T], config: Mapping[str, Any] | ml_collections.ConfigDict, where: str) -> T:
    """Makes the frozen dataclass `cls` from a config sub-tree; `where` is its path, such as "config.data".

    Nested dataclasses, optionals, tuples and `dict[str, dataclass]` are built from their sub-trees. Keys that are
    absent take the dataclass's defaults.

    Raises:
      UserError: every unknown key (with the nearest valid one), missing key and wrong type, in one line.
    """
    problems: list[str] = []
    value = _build(cls, config, where, problems)
    if problems:
        raise UserError("; ".join(problems))
    return value


def to_dict(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """A plain nested dict, as it is written to config.json."""
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    return {k: to_dict(v) if isinstance(v, Mapping | ml_collections.ConfigDict) else v for k, v in config.items()}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, nested dicts merged key by key."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out


def _build(cls, config, where: str, problems: list[str]):
    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        problems.append(f"{where} must hold {cls.__name__} options, got {config!r}")
        return None
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    given = {k: config[k] for k in config}  # iterating a ConfigDict keeps placeholders as None
    values = {}
    for key, value in given.items():
        if key in fields:
            values[key] = _convert(hints[key], value, f"{where}.{key}", problems)
        else:
            problems.append(f"unknown key {where}.{key}; {suggest(key, fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in given:
            problems.append(f"{where}.{name} is required")
    return None if problems else cls(**values)


def _convert(hint, value, where: str, problems: list[str]):
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return to_dict(value) if isinstance(value, ml_collections.ConfigDict) else value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        return _convert(kinds[0], value, where, problems)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, problems)
    if origin is typing.Literal:
        if value not in args:
            problems.append(f"{where} is {value!r}; {suggest(str(value), map(str, args))}")
        return value
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping | ml_collections.ConfigDict):
            problems.append(f"{where} must be a dict, got {value!r}")
            return value
        inner = args[1] if args else Any
        return {k: _convert(inner, value[k], f"{where}.{k}", problems) for k in value}
    if origin is tuple:
        if not isinstance(value, list | tuple):
            problems.append(f"{where} must be a tuple, got {value!r}")
            return value
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) != len(value):
            problems.append(f"{where} must have {len(kinds)} entries, got {value!r}")
            return value
        return tuple(
            _convert(k, v, f"{where}[{i}]", problems) for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        problems.append(f"{where} must be {hint.__name__}, got {value!r}")
    return value
