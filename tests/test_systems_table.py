"""The table of published systems keeps its word: every recipe and test that it names is there."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from medjax.errors import UserError

ROOT = Path(__file__).parent.parent
README = ROOT / "configs" / "README.md"
SYSTEMS = 89

ROW = re.compile(r"^\|\s*(\d+)\s*\|(.*)\|\s*$", re.MULTILINE)
RUNNER = re.compile(r"`((?:configs|medjax)/[\w/]+\.py)(?::([^`]+))?`")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NOTHING = ("", "-")


def problems(text: str) -> list[str]:
    """What is wrong with the page, a line each; empty if nothing is."""
    rows = ROW.findall(text)
    numbers = [int(n) for n, _ in rows]
    found = [] if numbers == list(range(1, SYSTEMS + 1)) else [f"rows are numbered {numbers}, not 1 to {SYSTEMS}"]
    for number, rest in rows:
        found += [f"row {number}: {p}" for p in _row_problems([cell.strip() for cell in rest.split("|")])]
    links = [link for link in LINK.findall(text) if not link.startswith("https://")]
    return found + [f"link to {link}, which is not there" for link in links if not (README.parent / link).exists()]


def _row_problems(cells: list[str]) -> list[str]:
    if len(cells) != 4:
        return [f"{len(cells) + 1} columns instead of 5"]
    system, core, runs, test = cells
    runners, tests = RUNNER.findall(runs), TEST.findall(test)
    found = [f"no {name}" for name, cell in (("system", system), ("core", core)) if cell in NOTHING]
    found += [f"no file {path}" for path, _ in (*runners, *tests) if not (ROOT / path).is_file()]
    if runs.startswith("not yet"):
        if runs.removeprefix("not yet").strip(" :") in NOTHING:
            found.append("not yet, without a reason")
        return found + ([] if test in NOTHING else [f"not yet, but proved by {test}"])
    if not runners:
        found.append(f"neither 'not yet' nor a recipe or binary: {runs!r}")
    if not tests:
        found.append(f"runs, but names no test: {test!r}")
    return found + [
        f"no {name} in {path}"
        for path, name in tests
        if name and (ROOT / path).is_file() and name not in _tests_of(path)
    ]


def _tests_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def _without_row(text: str, number: int) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(f"| {number} |"))


def _with_row(text: str, runs: str, test: str) -> str:
    """The page with other last cells in row 2."""
    return re.sub(r"^\| 2 \|.*$", f"| 2 | system | core | {runs} | {test} |", text, flags=re.MULTILINE)


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_is_proved_or_says_what_is_missing():
    assert problems(README.read_text()) == []


def test_every_recipe_is_on_the_page():
    text = README.read_text()
    recipes = [f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")]
    assert [r for r in recipes if f"`{r}`" not in text] == []


def test_named_recipes_accept_their_arguments_and_train_the_objective_they_name():
    named = {m for _, rest in ROW.findall(README.read_text()) for m in RUNNER.findall(rest)}
    recipes = sorted((path, arg) for path, arg in named if path.startswith("configs/"))
    assert recipes
    for path, arg in recipes:
        try:
            config = _load(ROOT / path).get_config(arg or None)
        except UserError as error:
            pytest.fail(f"{path}:{arg} is on the page and refused: {error}")
        objective = re.search(r"\bobjective=(\w+)", arg)
        if objective:
            assert list(config.method.objectives) == [objective[1]]


def test_the_number_of_running_systems_in_the_text_is_that_of_the_table():
    text = README.read_text()
    running = sum("| not yet" not in rest for _, rest in ROW.findall(text))
    assert f"{running} of the {SYSTEMS} run today" in text


@pytest.mark.parametrize("number", [1, 40, SYSTEMS])
def test_a_missing_or_doubled_row_is_noticed(number):
    text = README.read_text()
    assert any("numbered" in p for p in problems(_without_row(text, number)))
    row = next(line for line in text.splitlines() if line.startswith(f"| {number} |"))
    assert any("numbered" in p for p in problems(f"{text}{row}\n"))


@pytest.mark.parametrize(
    ("runs", "test", "complaint"),
    [
        ("not yet", "-", "without a reason"),
        ("not yet: ", "-", "without a reason"),
        ("not yet: a decoder", "`tests/test_systems_table.py`", "but proved by"),
        ("not yet: more than `configs/phantasm.py`", "-", "no file configs/phantasm.py"),
        ("soon", "`tests/test_systems_table.py`", "neither"),
        ("`configs/phantom.py`", "-", "names no test"),
        ("`configs/phantasm.py`", "`tests/test_systems_table.py`", "no file configs/phantasm.py"),
        ("`configs/phantom.py`", "`tests/losses/test_nothing.py`", "no file tests/losses/test_nothing.py"),
        ("`configs/phantom.py`", "`tests/test_systems_table.py::test_nothing`", "no test_nothing in"),
    ],
)
def test_a_row_that_promises_too_much_is_noticed(runs, test, complaint):
    assert any(p.startswith("row 2:") and complaint in p for p in problems(_with_row(README.read_text(), runs, test)))


def test_a_row_that_holds_is_not_complained_of():
    text = _with_row(
        README.read_text(), "`configs/phantom.py`", "`tests/test_systems_table.py::test_every_recipe_is_on_the_page`"
    )
    assert [p for p in problems(text) if p.startswith("row 2:")] == []
