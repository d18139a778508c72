"""The quickstart, from nothing to a report, in a folder whose name has a space."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quickstart_ends_with_a_summary_and_a_report(tmp_path):
    directory = tmp_path / "a b"
    keep = directory / "data" / "notes.txt"
    keep.parent.mkdir(parents=True)
    keep.write_text("mine")
    hidden = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "NPROC")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment["RECIPE"] = f"{ROOT / 'configs' / 'phantom.py'}:tiny,steps=4"
    command = ["bash", str(ROOT / "launch" / "quickstart.sh"), directory.name]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1700, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert keep.read_text() == "mine"
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["train"]["steps"] == 4 and summary["train"]["examples_per_second"] > 0
    assert {"loss_first", "loss_last"} <= set(summary["train"])
    assert set(summary["zero_shot"]["macro_auroc"]) == {"value", "low", "high"}
    assert len(summary["zero_shot"]["findings"]) == 9 and len(summary["zero_shot"]["joint_findings"]) == 1
    for direction in summary["retrieval"].values():
        assert {"recall@1", "recall@5", "recall@10", "median_rank", "chance"} <= set(direction)
    assert summary["joint_retrieval"]
    assert summary["export"]["max_abs_difference"] <= 1e-5
    assert str(directory / "report.html") in done.stdout and (directory / "report.html").is_file()
