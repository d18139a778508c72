"""The README's commands name programs, flags, recipes and files that exist, and its Python runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
SHELL = [c for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S) for c in block.replace("\\\n", " ").splitlines()]
COMMANDS = [shlex.split(c, comments=True) for c in SHELL if c.strip()]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def _flags(module: str) -> set[str]:
    """Names of the flags of a binary, from its own help."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--helpfull"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    return set(re.findall(r"^\s+--(?:\[no\])?(\w+)", done.stdout, re.M))


@pytest.mark.end_to_end
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
