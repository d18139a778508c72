"""Prompt files: three forms, and errors that name file, key and nearest name."""

import json

import pytest

from medjax.data.manifest import Finding
from medjax.errors import UserError
from medjax.evaluation.prompt_files import read_prompt_file

LABELS = ("pneumonia", "oedema", "effusion")
PAIR = {"positive": ["yes"], "negative": ["no"]}


@pytest.fixture
def read(tmp_path):
    def of(content, known=None):
        path = tmp_path / "prompts.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_prompt_file(path, LABELS, known)

    return of


def test_pairs_are_findings(read):
    found = read({"oedema": PAIR | {"seen_in": ["image"]}})
    assert found.findings == {"oedema": Finding(("yes",), ("no",), ("image",))} and not found.groups
    assert found.as_dict() == {"oedema": {"positive": ["yes"], "negative": ["no"]}}


def test_every_name_goes_into_every_template(read):
    found = read(
        {
            "templates": ["a chest X-ray of {}", "{}"],
            "negative_templates": ["no {}"],
            "classes": {"pneumonia": ["pneumonia", "lung infection"]},
        },
        {"pneumonia": Finding(("x",), ("y",), ("image",), True)},
    ).findings["pneumonia"]
    assert found.positive == (
        "a chest X-ray of pneumonia",
        "pneumonia",
        "a chest X-ray of lung infection",
        "lung infection",
    )
    assert found.negative == ("no pneumonia", "no lung infection")
    assert found.seen_in == ("image",) and found.joint


def test_classes_pairs_and_groups_stand_together_and_follow_the_labels(read):
    found = read(
        {
            "classes": {"pneumonia": ["pneumonia"]},
            "pairs": {"oedema": PAIR, "effusion": {"positive": ["fluid"]}},
            "groups": {"kind": ["pneumonia", "oedema"]},
        }
    )
    assert set(found.findings) == set(LABELS) and found.findings["effusion"].negative == ()
    assert found.of(("oedema", "other")).groups == {}
    assert set(found.of(("oedema", "pneumonia")).findings) == {"oedema", "pneumonia"}
    assert found.of(LABELS) == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold an object"),
        ({"pneumona": PAIR}, "'pneumona' is no label and no key; did you mean 'pneumonia'"),
        ({"template": ["{}"], "classes": {"oedema": ["x"]}}, "unknown key .*template; did you mean 'templates'"),
        ({"classes": {"odema": ["x"]}}, "classes names 'odema', which is no label; did you mean 'oedema'"),
        ({"oedema": {"positve": ["x"]}}, "unknown key .*positve; did you mean 'positive'"),
        ({"classes": {"oedema": []}}, "classes.oedema is an empty list"),
        ({"pairs": {"oedema": {"positive": [], "negative": ["x"]}}}, "pairs.oedema.positive is an empty list"),
        ({"oedema": {"positive": [" "], "negative": []}}, "pairs.oedema.positive holds an empty prompt"),
        ({"templates": ["a {} of {}"], "classes": {"oedema": ["x"]}}, "a template has one {}"),
        ({"templates": [], "classes": {"oedema": ["x"]}}, "templates is an empty list"),
        ({"templates": ["{}"]}, "asks for no label"),
        ({"pairs": {"oedema": PAIR}, "classes": {"oedema": ["x"]}}, "oedema is in pairs and in classes"),
        (
            {"classes": {"oedema": ["x"], "effusion": ["y"]}, "groups": {"g": ["oedema", "efusion"]}},
            "groups.g names 'efusion', which has no prompts; did you mean 'effusion'",
        ),
        ({"classes": {"oedema": ["x"]}, "groups": {"g": ["oedema"]}}, "groups.g needs two or more"),
        ({"classes": {"oedema": "x"}}, "classes.oedema must be a tuple"),
    ],
)
def test_bad_files_are_answered_with_file_key_and_nearest_name(read, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(content)
    assert "prompts.json" in str(error.value)


def test_a_missing_file_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "prompts.json").write_text("{}")
    with pytest.raises(UserError, match=r"does not exist; did you mean 'prompts.json'"):
        read_prompt_file(tmp_path / "prompt.json", LABELS)
