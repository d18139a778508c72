"""From an export full of names through build, training, evaluation and export: no output names anybody."""

import os
import subprocess
import sys
from pathlib import Path

import planted
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of the raw export, of everything that programs write, and of the key."""
    for package in ("pydicom", "pyarrow", "torch.nn"):
        pytest.importorskip(package)
    base = tmp_path_factory.mktemp("planted")
    planted.write_export(base / "raw")
    (base / "out").mkdir()
    return base


@pytest.fixture(scope="module")
def call(places):
    """`call(program, *flags)` runs one, keeps what it prints among the outputs, and returns its status and words."""
    one_device = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(places / "cache")}

    def run(program: str, *flags: str, keep: bool = True) -> tuple[int, str]:
        environment = os.environ | one_device | {"XDG_CONFIG_HOME": str(places / "config")}
        command = [sys.executable, "-m", f"medjax.bin.{program}", *flags]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        number = len(list((places / "out").glob("console-*")))
        if keep:
            (places / "out" / f"console-{number}-{program}.txt").write_text(done.stdout + done.stderr)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def outputs(places, call):
    """Everything that is written on the way from the raw export to an export of the weights."""
    out, run = places / "out", places / "out" / "run"
    done = call("build_dataset", *_flags(places, "data"))
    assert done[0] == 0, done[1]
    recipe = f"{ROOT / 'configs' / 'table.py'}:modalities=image+labs+text,width=16,depth=1,batch=16"
    few = ("train.total_epochs=2", "train.log_every_steps=1", "data.modalities.image.size=32")
    options = [f"--config.{x}" for x in (f"data.dir={out / 'data'}", *few)]
    done = call("train", f"--config={recipe}", *options, f"--workdir={run}")
    assert done[0] == 0, done[1]
    for program in ("inspect_dataset", "evaluate_retrieval", "report", "export"):
        where = f"--data={out / 'data'}" if program == "inspect_dataset" else f"--workdir={run}"
        more = [f"--output={out / 'inspection'}"] if program == "inspect_dataset" else []
        done = call(program, where, *more)
        assert done[0] == 0, done[1]
    return out


def _flags(places: Path, name: str) -> list[str]:
    return [
        *("--source=table", f"--input={places / 'raw' / 'studies.csv'}", f"--output={places / 'out' / name}"),
        *("--name=planted", "--licence=CC0-1.0", "--workers=2", "--max_rejected_fraction=0.2"),
        *("--image_columns=image", "--text_columns=report", "--numeric_columns=crp", "--label_columns=sick"),
        *("--patient_column=patient", "--id_column=id", "--split_column=split", "--time_column=seen"),
        "--identifier_columns=name,born",
    ]


def test_nothing_that_is_written_or_printed_names_anybody(outputs):
    kinds = {p.suffix for p in outputs.rglob("*") if p.is_file()}
    assert {".array_record", ".jsonl", ".json", ".html", ".log", ".safetensors", ".md", ".txt"} <= kinds
    assert planted.leaks(outputs) == []


def test_a_build_that_stops_names_nobody_either(places, call, outputs):
    flags = [x for x in _flags(places, "stopped") if not x.startswith("--max_rejected")]
    status, said = call("build_dataset", *flags)
    assert status == 2 and "are unreadable" in said
    assert planted.leaks(outputs / "stopped") == [] and planted.needles().search(said.lower().encode()) is None


def test_the_owner_of_the_key_can_look_a_study_up(places, call, outputs):
    lines = (outputs / "data" / "rejected.jsonl").read_text()
    name = lines.split('"')[3]
    status, said = call("build_dataset", *_flags(places, "data"), f"--whois={name}", keep=False)
    assert status == 0 and any(p.file in said for p in planted.people())


def test_the_search_would_have_found_them_in_what_was_read(places):
    assert len(planted.leaks(places / "raw")) > 400
