"""A run whose data and workdir lie in an object store ends as one on this machine, also if another machine goes on."""

import json

import jax
import numpy as np
import pytest

from medjax.bin.cli import load_config
from medjax.checkpoints import mirror
from medjax.methods.encoder import load_run
from medjax.training import loop

RUN = "gs://bucket/runs/phantom"


@pytest.mark.slow
def test_a_run_that_another_machine_goes_on_with_equals_one_here(gcs, phantom_dir, phantom_run, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDJAX_STORAGE_ATTEMPTS", "3")
    for path in phantom_dir.rglob("*"):
        if path.is_file():
            gcs.put("bucket", f"data/{path.relative_to(phantom_dir)}", path.read_bytes())
    for machine, stop in (("one", 2), ("two", None)):
        monkeypatch.setenv("MEDJAX_CACHE_DIR", str(tmp_path / machine))
        config = load_config("configs/phantom.py:tiny,steps=4")
        config.data.dir, config.data.modalities.image.size = "gs://bucket/data", 32
        gcs.fail("GET /download/.*array_record", 503)
        gcs.fail("POST /upload", 503)
        with mirror.spooled(RUN) as folder:
            loop.run(config, folder, stop)
    monkeypatch.setenv("MEDJAX_CACHE_DIR", str(tmp_path / "three"))
    here, there = load_run(phantom_run, "last"), load_run(RUN, "last")
    assert there.step == here.step == 4
    jax.tree.map(np.testing.assert_array_equal, there.params, here.params)
    rows = gcs.objects["bucket"]["runs/phantom/metrics.jsonl"][0].decode().splitlines()
    losses = {row["step"]: row["train/loss"] for row in map(json.loads, rows) if "train/loss" in row}
    assert 4 in losses and all(np.isfinite(list(losses.values())))
    assert json.loads(gcs.objects["bucket"]["runs/phantom/config.json"][0])["data"]["dir"] == "gs://bucket/data"
    assert {"train.log", "versions.json", "manifest.json"} <= {
        n.rpartition("/")[2] for n in gcs.names("bucket", "runs")
    }
    assert "runs/phantom/run.lock" not in gcs.objects["bucket"]
