"""Results follow their schema, and our check finds what a JSON Schema library finds."""

import copy
import json

import pytest

from medjax.errors import UserError
from medjax.evaluation.schema import check_results, results_schema

INTERVAL = {"value": 0.7, "low": 0.6, "high": None}
GOOD = {
    "medjax": "1.0",
    "subject": {"kind": "run", "name": "a"},
    "checkpoint": {"name": "best", "step": 3, "weights": "raw", "more": 1},
    "data": {
        **{"name": "d", "synthetic": True, "licence": "CC0-1.0", "terms": [], "manifest_sha256": None, "notes": ["n"]},
        **{"patients_known": True, "sensitive": False, "texts_from_labels": False, "split": "test", "examples": 4},
        **{"patients": 2, "example_list_sha256": "ab", "times_opened": None},
    },
    "intervals": "95 %",
    "controls": {"chance": {"macro_auroc": 0.5}, "untrained": None},
    "anything": [{"findings": {"x": {**INTERVAL, "verdict": "better"}}, "value": 3}],
}
BROKEN = {
    "its top: 'subject' is missing": lambda r: r.pop("subject"),
    "/data: 'split' is missing": lambda r: r["data"].pop("split"),
    "/data/examples: expected integer, got true": lambda r: r["data"].update(examples=True),
    "/data/examples: -1 is below 0": lambda r: r["data"].update(examples=-1),
    '/data/notes[0]: expected string, got {"a": 1}': lambda r: r["data"].update(notes=[{"a": 1}]),
    "/checkpoint/step: expected integer or null": lambda r: r["checkpoint"].update(step="3"),
    "/controls: expected object or null, got 0.5": lambda r: r.update(controls=0.5),
    "/controls/chance/auroc: 'high' is missing": lambda r: r["controls"]["chance"].update(auroc={"value": 1, "low": 0}),
    "/anything[0]/findings/x: 'low' is missing": lambda r: r["anything"][0]["findings"]["x"].pop("low"),
    "/anything[0]/findings/x/high: expected number": lambda r: r["anything"][0]["findings"]["x"].update(high="1"),
}


def test_results_may_have_any_further_keys():
    check_results(GOOD)
    check_results(json.loads(json.dumps(GOOD)))


@pytest.mark.parametrize("message", BROKEN)
def test_an_offence_is_named_with_its_path(message):
    library = pytest.importorskip("jsonschema").Draft202012Validator(results_schema())
    broken = copy.deepcopy(GOOD)
    assert library.is_valid(broken)
    BROKEN[message](broken)
    assert not library.is_valid(broken)
    with pytest.raises(UserError) as error:
        check_results(broken, "a.json")
    assert message in str(error.value) and str(error.value).startswith("a.json ")


def test_a_number_that_json_cannot_write_is_refused():
    with pytest.raises(UserError, match=r"/anything/x: nan is no number in JSON"):
        check_results({**GOOD, "anything": {"x": float("nan")}})


def test_the_schema_is_one():
    pytest.importorskip("jsonschema").Draft202012Validator.check_schema(results_schema())
