"""The format of results.json, which `results_schema.json` beside this file says, and a check of it.

The schema follows JSON Schema draft 2020-12, so that other programs can check by it with a library of their own; the
check here knows the keywords that the schema uses. The head is fixed, and measurements may have any further keys.
"""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from medjax.errors import UserError

_FILE = Path(__file__).with_name("results_schema.json")
_TYPES = {
    "object": Mapping,
    "array": list | tuple,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": int | float,
    "null": type(None),
}


@cache
def results_schema() -> dict[str, Any]:
    """The schema as JSON says it."""
    return json.loads(_FILE.read_text())


def check_results(results: Any, where: str = "results.json") -> None:
    """Checks what is or will be a results.json.

    where: what the message calls it.

    Raises:
      UserError: it does not follow the schema, or holds a number that JSON cannot; names the path of the first offence.
    """
    for path, offence in _offences(results, results_schema(), ""):
        raise UserError(f"{where} does not follow the format of results at {path or 'its top'}: {offence}")


def _offences(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, f"{value} is no number in JSON; write null"
    if reference := schema.get("$ref"):
        yield from _offences(value, results_schema()["$defs"][reference.rsplit("/", 1)[-1]], path)
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, t) for t in types):
        yield path, f"expected {' or '.join(types)}, got {json.dumps(value, default=str)[:60]}"
        return
    if "minimum" in schema and value < schema["minimum"]:
        yield path, f"{value} is below {schema['minimum']}"
    if isinstance(value, Mapping):
        yield from _of_object(value, schema, path)
    elif isinstance(value, list | tuple) and "items" in schema:
        for i, item in enumerate(value):
            yield from _offences(item, schema["items"], f"{path}[{i}]")
    if "anyOf" in schema and not any(_follows(value, s) for s in schema["anyOf"]):
        yield path, "none of the allowed forms"
    if "if" in schema:
        yield from _offences(value, schema["then" if _follows(value, schema["if"]) else "else"], path)


def _of_object(value: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key in schema.get("required", ()):
        if key not in value:
            yield path, f"{key!r} is missing"
    known = schema.get("properties", {})
    for key, item in value.items():
        if key in known or "additionalProperties" in schema:
            part = known[key] if key in known else schema["additionalProperties"]
            yield from _offences(item, part, f"{path}/{key}")


def _follows(value: Any, schema: Mapping[str, Any]) -> bool:
    return next(_offences(value, schema, ""), None) is None


def _is(value: Any, name: str) -> bool:
    """In JSON true is no number."""
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
