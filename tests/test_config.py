"""Configuration: types of arguments, dataclasses from sub-trees, every problem named at once."""

from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, Literal

import ml_collections
import pytest

from medjax.config import build, merge, parse_arg, to_dict
from medjax.errors import UserError


@dataclass(frozen=True)
class Layer:
    width: int
    kind: Literal["relu", "gelu"] = "gelu"


@dataclass(frozen=True)
class Model:
    depth: int
    rate: float = 0.5
    flag: bool = False
    name: str | None = None
    sizes: tuple[int, ...] = (1, 2)
    first: Layer = field(default_factory=lambda: Layer(3))
    layers: dict[str, Layer] = field(default_factory=dict)
    anything: Any = None
    limit: Layer | None = None


def parse(arg):
    return parse_arg(arg, width=8, rate=0.1, small=False, name="x", path=None).to_dict()


def problems(config) -> str:
    with pytest.raises(UserError) as error:
        build(Model, config, "config.model")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("arg", [None, ""])
def test_without_an_argument_the_defaults_hold(arg):
    assert parse(arg) == {"width": 8, "rate": 0.1, "small": False, "name": "x", "path": None}


def test_arguments_take_the_type_of_their_default():
    read = parse("width=64,rate=1,small,name=12,path=a=b")
    assert read == {"width": 64, "rate": 1.0, "small": True, "name": "12", "path": "a=b"}
    assert type(read["rate"]) is float
    assert parse("small=0,width=3") == parse("width=3")
    assert parse("small=True")["small"] is True


def test_unknown_argument_is_named_with_the_nearest():
    with pytest.raises(UserError, match="unknown config argument 'wdith'; did you mean 'width'"):
        parse("wdith=3")


@pytest.mark.parametrize(
    ("arg", "kind"),
    [("width=1.5", "int"), ("width=", "int"), ("width", "int"), ("rate=x", "float"), ("small=2", "bool")],
)
def test_argument_of_the_wrong_type_is_named_with_its_type(arg, kind):
    with pytest.raises(UserError, match=f"{arg.partition('=')[0]}=.* is not of type {kind}"):
        parse(arg)


@pytest.mark.parametrize("wrap", [dict, ml_collections.ConfigDict])
def test_nested_sub_trees_become_dataclasses(wrap):
    config = wrap(
        {
            "depth": 2,
            "rate": 1,
            "sizes": [4, 5],
            "first": {"width": 7, "kind": "relu"},
            "layers": {"a": {"width": 1}, "b": {"width": 2}},
            "anything": {"free": {"form": 1}},
            "limit": {"width": 9},
        }
    )
    model = build(Model, config, "config.model")
    layers = {"a": Layer(1), "b": Layer(2)}
    assert model == Model(
        2, 1.0, sizes=(4, 5), first=Layer(7, "relu"), layers=layers, anything={"free": {"form": 1}}, limit=Layer(9)
    )
    assert type(model.rate) is float
    assert type(model.anything) is dict
    with pytest.raises(FrozenInstanceError):
        model.depth = 3


def test_absent_keys_take_their_defaults():
    assert build(Model, {"depth": 1}, "config.model") == Model(1)


def test_none_is_kept_for_optional_fields_only():
    assert build(Model, ml_collections.ConfigDict({"depth": 1, "name": None}), "c").name is None
    assert "config.model.rate must be float, got None" in problems({"depth": 1, "rate": None})


def test_every_problem_is_listed_in_one_line():
    text = problems(
        {
            "rtae": 1.0,
            "flag": 1,
            "name": 3,
            "sizes": (1, "b"),
            "first": {"widht": 2},
            "layers": {"a": {"width": 1, "kind": "gelo"}, "b": 5},
        }
    )
    for piece in (
        "unknown key config.model.rtae; did you mean 'rate'?",
        "config.model.depth is required",
        "config.model.flag must be bool, got 1",
        "config.model.name must be str, got 3",
        "config.model.sizes[1] must be int, got 'b'",
        "unknown key config.model.first.widht; did you mean 'width'?",
        "config.model.first.width is required",
        "config.model.layers.a.kind is 'gelo'; did you mean 'gelu'?",
        "config.model.layers.b must hold Layer options, got 5",
    ):
        assert piece in text


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("depth", True, "int"),
        ("depth", 1.0, "int"),
        ("rate", True, "float"),
        ("rate", "1", "float"),
        ("name", 1, "str"),
        ("sizes", 3, "a tuple"),
        ("layers", 3, "a dict"),
    ],
)
def test_wrong_types_are_named(key, value, kind):
    assert f"config.model.{key} must be {kind}, got {value!r}" in problems({"depth": 1, key: value})


def test_merge_lays_changes_over_nested_dicts_and_leaves_both_alone():
    base, changes = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}, {"a": {"y": {"w": 4}, "x": {"deep": 5}}, "c": 6}
    merged = merge(base, changes)
    assert merged == {"a": {"x": {"deep": 5}, "y": {"z": 2, "w": 4}}, "b": 3, "c": 6}
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    assert merge(base, {}) == base


def test_config_dicts_become_plain_dicts_all_the_way():
    plain = to_dict(ml_collections.ConfigDict({"a": {"b": {"c": 1}}, "d": [1, 2]}))
    assert plain == {"a": {"b": {"c": 1}}, "d": [1, 2]}
    assert type(plain["a"]) is dict
    assert type(plain["a"]["b"]) is dict
    mixed = to_dict({"a": ml_collections.ConfigDict({"b": 1})})
    assert type(mixed["a"]) is dict
