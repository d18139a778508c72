"""The shape of the house: who may import whom, sizes of files, docstrings."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "medjax"
FILES = sorted(PACKAGE.rglob("*.py"))
# A folder imports from those after it.
LAYERS = ["bin", "training", "methods", "evaluation", "checkpoints", "convert", "models", "losses", "data", "sharding"]
# Modules at the top, which anyone may import; "" is `medjax` itself.
COMMON = ["config", "errors", "retries", "storage", ""]
APART = ["torch", "benchmarks"]


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(source: str, package: tuple[str, ...] = (), top_level_only: bool = False) -> set[str]:
    """Dotted names of all modules that a source imports anywhere; `from a import b` counts as a.b."""
    tree = ast.parse(source)
    out = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            out |= {".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names}
    return out


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """The same of a file of the package."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    return imported(path.read_text(), package, top_level_only)


def folder(module: str) -> str:
    """The part of medjax that a dotted name lies in: "losses" for medjax.losses.gram."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def starts(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def parts_of_medjax(path: Path) -> set[str]:
    return {m for m in imports(path) if starts(m, "medjax")}


def test_imports_are_recognised_in_every_form():
    """What the other tests rest on."""
    source = "import a.b\nfrom c import d\ndef f():\n  import e\n  from .g import h\n  from .. import i as j\n"
    assert imported(source, ("m", "n")) == {"a.b", "c.d", "e", "m.n.g.h", "m.i"}
    assert imported(source, ("m", "n"), top_level_only=True) == {"a.b", "c.d"}
    assert folder("medjax.losses.gram") == "losses"
    assert folder("medjax.config.build") == ""


def test_every_folder_has_its_place():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert folders <= {*LAYERS, *APART}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_downward_only(layer):
    allowed = {*LAYERS[LAYERS.index(layer) :], ""}
    wrong = [
        f"{name(path)} imports {module}"
        for path in sorted((PACKAGE / layer).rglob("*.py"))
        for module in sorted(parts_of_medjax(path))
        if folder(module) not in allowed | set(APART)
    ]
    assert not wrong


def test_nothing_imports_what_stands_apart_but_the_export():
    wrong = [
        f"{name(path)} imports {module}"
        for path in FILES
        for module in sorted(parts_of_medjax(path))
        if folder(module) in APART and path.relative_to(PACKAGE).parts[0] not in (folder(module), "convert")
        if path.parent != PACKAGE / "bin" or not (path.stem.startswith("export") or folder(module) == "benchmarks")
    ]
    assert not wrong


def test_only_models_import_linen():
    wrong = [
        name(path)
        for path in FILES
        if PACKAGE / "models" not in path.parents and any(starts(m, "flax") for m in imports(path))
    ]
    assert not wrong


def test_losses_know_neither_models_nor_the_mesh_nor_data():
    """Anyone can use them without the rest."""
    used = {folder(m) for path in (PACKAGE / "losses").rglob("*.py") for m in parts_of_medjax(path)}
    assert used <= {"losses", ""}


def test_sharding_knows_nothing_of_its_callers():
    used = {folder(m) for path in (PACKAGE / "sharding").rglob("*.py") for m in parts_of_medjax(path)}
    assert used <= {"sharding", ""}


def test_torch_side_imports_no_jax_and_nothing_else_of_medjax():
    for path in (PACKAGE / "torch").rglob("*.py"):
        for module in imports(path):
            assert not any(starts(module, p) for p in ("jax", "jaxlib", "flax", "optax", "orbax")), name(path)
            assert not starts(module, "medjax") or starts(module, "medjax.torch"), f"{name(path)} imports {module}"


def test_torch_is_imported_only_on_the_torch_side():
    """At the top of a file: the export's check imports it when it runs."""
    wrong = [
        name(path)
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] not in APART
        if any(starts(m, "torch") for m in imports(path, top_level_only=True))
    ]
    assert not wrong


def test_importing_medjax_loads_neither_jax_nor_torch():
    code = "import sys, medjax; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    modules = loaded.stdout.split()
    assert "medjax" in modules
    assert not {"jax", "torch", "flax", "numpy", "grain", "transformers"} & set(modules)


def test_importing_the_losses_loads_neither_flax_nor_data():
    code = (
        "import sys, medjax.losses; print(*sorted(m for m in sys.modules if m.startswith(('flax', 'grain', 'medjax'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    parts = {".".join(m.split(".")[:2]) for m in loaded.stdout.split()}
    assert parts == {"medjax", "medjax.errors", "medjax.losses"}


def test_no_file_has_more_than_300_lines():
    sizes = {name(path): len(path.read_text().splitlines()) for path in FILES}
    one_file = {"medjax/torch/modeling.py"}  # exports carry it, so it stands alone
    assert not {path: n for path, n in sizes.items() if n > 300 and path not in one_file}


def public_without_docstring(node, inside: str):
    """Names of public functions, classes and methods without a docstring; torch's `forward` needs none."""
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        if ast.get_docstring(child) is None and child.name != "forward":
            yield f"{inside}{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from public_without_docstring(child, f"{inside}{child.name}.")


def test_everything_public_has_a_docstring():
    missing = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None and path.read_text().strip():
            missing.append(name(path))
        missing += [f"{name(path)}: {x}" for x in public_without_docstring(tree, "")]
    assert not missing


def test_no_line_names_a_place_outside_the_project():
    outside = re.compile(r"(?<![\w.])/work\b|\.\./shared")
    skipped = {".git", ".venv", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}
    kinds = {".py", ".md", ".sh", ".toml", ".txt", ".ipynb", ".cfg", ".yml", ".yaml"}
    wrong = [
        f"{name(path)}:{i}"
        for part in ("medjax", "configs", "launch", "tests", "notebooks")
        for path in sorted((ROOT / part).rglob("*"))
        if path.suffix in kinds and path.is_file() and not skipped & set(path.parts) and path != Path(__file__)
        for i, line in enumerate(path.read_text().splitlines(), 1)
        if outside.search(line)
    ]
    assert not wrong
