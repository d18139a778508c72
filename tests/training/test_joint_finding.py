"""What only two modalities tell together is learnt by Symile and not by pairs, with the same budget."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(module: str, *arguments: str) -> None:
    # As a user's machine has it: one device, and the compiler's usual optimisations.
    hidden = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", f"medjax.bin.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def _accuracy(data: Path, workdir: Path, objective: str) -> dict[str, float]:
    recipe = f"--config=configs/phantom.py:objective={objective},steps=200"
    _run("train", recipe, f"--config.data.dir={data}", f"--workdir={workdir}")
    _run("evaluate_retrieval", f"--workdir={workdir}", "--examples=0")
    results = json.loads((workdir / "evaluation" / "retrieval" / "results.json").read_text())
    return results["joint_findings"]["discordant_laterality"]["accuracy"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_symile_finds_the_joint_finding_and_pairs_do_not(tmp_path):
    data = tmp_path / "data"
    _run("build_dataset", "--source=phantom", f"--output={data}")
    pairs = _accuracy(data, tmp_path / "pairs", "info_nce")
    symile = _accuracy(data, tmp_path / "symile", "symile")
    assert symile["low"] > 0.9
    assert pairs["high"] < 0.65  # by chance a half
