"""Every recipe compiled by the real TPU compiler, and whole models for whole pods, on a machine without a TPU."""

import fcntl
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GIB = 2**30
# As small as each recipe goes; those without such a variant are made small by their own arguments.
SMALL = {
    "contrastive_gap": "tiny",
    "convirt": "tiny",
    "cxr_notes": "tiny",
    "gram": "tiny",
    "hannover": "tiny",
    "hippocampus": "tiny",
    "mae": "tiny",
    "mae_then_contrastive": "tiny",
    "medclip_sam": "tiny",
    "mgca": "tiny",
    "more": "tiny",
    "phantom": "tiny",
    "pneumonia_mnist": "tiny",
    "ptbxl": "tiny",
    "radclip": "tiny",
    "siglip": "tiny",
    "symile_mimic": "tiny",
    "table": "width=16,depth=1,batch=16",
    "unicl": "tiny",
    "unimed_clip": "tiny",
}
NO_TRAINING = {"symile_xor"}  # an experiment of its own

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"),
]


@functools.cache
def plan(spec: str, topology: str, *flags: str) -> dict | list:
    """The plan that the program writes; one compiler at a time, also among the processes of a test run."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
        environment.pop(name, None)
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(tempfile.gettempdir()) / "medjax-libtpu.lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        written = Path(folder) / "plan.json"
        command = [sys.executable, "-m", "medjax.bin.plan", f"--config={spec}", f"--topology={topology}", *flags]
        done = subprocess.run(
            [*command, f"--json={written}"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(written.read_text())


def test_every_recipe_is_compiled_here():
    recipes = {p.stem for p in (ROOT / "configs").glob("*.py")}
    assert recipes == {*SMALL, *NO_TRAINING}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_recipe_compiles_for_eight_chips(name):
    found = plan(f"configs/{name}.py:{SMALL[name]}", "v5e:2x4")
    assert found["fits"] and found["compiled_for_these_devices"]
    memory = found["bytes_per_device"]
    assert memory["parameters"] < 4 * sum(found["parameters"].values())  # fsdp splits them
    assert {"all-reduce", "reduce-scatter"} & {row["kind"] for row in found["collectives"]}  # of the gradients
    assert found["replicated_by_accident_share"] <= 0.05


def test_whole_model_on_a_whole_pod():
    """ViT-B/16 and BERT-base on 256 chips of v5e."""
    found = plan("configs/siglip.py", "v5e:16x16", "--batch_size=4096", "--config.blocks.scan=True")
    assert found["mesh"] == {"replica": 4, "fsdp": 64, "tensor": 1}
    assert found["fits"]
    memory, total = found["bytes_per_device"], sum(found["parameters"].values())
    assert 190e6 < total < 210e6
    # A sixty-fourth of the weights and of two moments, but for what is small.
    assert memory["parameters"] <= 1.1 * 4 * total / 64
    assert memory["optimizer"] <= 1.1 * 8 * total / 64
    rows = {(row["kind"], tuple(row["axes"])): row for row in found["collectives"]}
    # Weights are gathered along fsdp, in the passes forward and back and again where blocks are computed anew, in two
    # or four bytes a number; something is summed over both axes.
    gathered = sum(row["sent"] for (kind, axes), row in rows.items() if kind == "all-gather" and axes == ("fsdp",))
    assert 2 * 2 * total < gathered < 3 * 4 * total
    assert ("all-reduce", ("replica", "fsdp")) in rows
    assert found["collective_bytes_per_device"] < 6 * 4 * total


def test_memory_and_communication_of_a_device_do_not_grow_with_their_number():
    few, many = plan(
        # Widths of 16 divide by no more than 8.
        f"configs/siglip.py:{SMALL['siglip']}",
        "v5p:2x2x2,v5p:4x4x4",
        "--batch_size=128",
        "--config.mesh.fsdp=8",
    )
    assert (few["devices"], many["devices"]) == (8, 64)
    assert many["batch_size"] == 8 * few["batch_size"]
    assert many["bytes_per_device"]["peak"] <= 1.1 * few["bytes_per_device"]["peak"]
    assert many["collective_bytes_per_device"] <= 1.3 * few["collective_bytes_per_device"]
