"""The README's commands name programs, flags, recipes and files that exist, and its Python runs."""

import ast
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
SHELL = [c for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S) for c in block.replace("\\\n", " ").splitlines()]
COMMANDS = [shlex.split(c, comments=True) for c in SHELL if c.strip()]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def _flags(module: str) -> set[str]:
    """Names of the flags that a program defines, itself or in the modules of medjax.bin that it imports."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    names = [c.args[0] for c in calls if c.func.attr.startswith("DEFINE_")]
    found = {n.value for n in names if isinstance(n, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medjax.bin"):
            named = [f"{node.module}.{x.name}" for x in node.names] if node.module == "medjax.bin" else [node.module]
            found |= {flag for name in named for flag in _flags(name)}
    return found


def test_every_flag_of_every_command_exists():
    modules = {word for command in COMMANDS for word in command if word.startswith("medjax.bin.")}
    known = {m: _flags(m) for m in modules}
    assert len(modules) >= 7
    several = [c for c in COMMANDS if "launch/several_processes.sh" in c]
    assert several
    for command in COMMANDS:
        module = next((w for w in command if w.startswith("medjax.bin.")), None)
        module = "medjax.bin.train" if command in several else module
        for word in command if module else ():
            if word.startswith("--") and not word.startswith("--config."):
                assert word[2:].split("=")[0] in known[module], (module, word)


def test_scripts_recipes_and_config_keys_exist():
    from medjax.bin.cli import load_config

    recipes = 0
    for command in COMMANDS:
        for word in command:
            if word.endswith(".sh"):
                assert (ROOT / word).is_file(), word
        spec = next((w.split("=", 1)[1] for w in command if w.startswith("--config=")), None)
        if spec is None:
            continue
        recipes += 1
        node = load_config(str(ROOT / spec))
        for word in command:
            if word.startswith("--config."):
                key = word.split("=")[0].removeprefix("--config.")
                part = node
                for name in key.split("."):
                    part = part[name]
    assert recipes >= 4


def test_links_lead_somewhere():
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in t]
    headings = {"#" + h.lower().replace(" ", "-") for h in re.findall(r"^## (.+)$", TEXT, re.M)}
    assert targets and [t for t in targets if t not in headings and not (ROOT / t).exists()] == []


def test_the_example_of_a_loss_runs(capsys):
    exec(next(p for p in PYTHON if "losses.get" in p), {})
    assert "info_nce" in capsys.readouterr().out


def test_every_objective_and_encoder_has_a_row():
    from medjax.losses import OBJECTIVES
    from medjax.models import TOWERS

    for name in (*OBJECTIVES, *TOWERS):
        assert re.search(rf"^\|.*`{name}`", TEXT, re.M), name
