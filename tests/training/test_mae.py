"""The recipe of masked autoencoders: it learns, says how its features spread, goes on after a stop, and is probed."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from methods_batch import BLOCKS, SPECS, make_batch

from medjax.bin.cli import load_config
from medjax.checkpoints import CheckpointStore
from medjax.data import Dataset
from medjax.methods import make_method
from medjax.methods.encoder import load_run
from medjax.models import make_tower
from medjax.models.partitioning import axis_rules, unbox
from medjax.sharding import ACTIVATION_RULES, MeshConfig, make_mesh, to_global
from medjax.training import loop
from medjax.training.experiment import stages
from medjax.training.starting import specs
from medjax.training.state import StateFactory, TrainState
from medjax.training.step import make_train_step
from medjax.training.validate import Validator

ROOT = Path(__file__).parents[2]
STEPS = 60
SMALL = {"name": "vit", "patch": 8, "positions": "sincos", "pool": "mean", "width": 16, "depth": 1, "heads": 4}


@pytest.fixture(scope="module")
def recipe(phantom_dir):
    config = load_config(f"{ROOT / 'configs' / 'mae.py'}:tiny,size=32,patch=8")
    config.data.dir, config.optimizer.lr = str(phantom_dir), 1e-2
    del config.train["total_epochs"], config.train["checkpoint_every_percent"]
    config.train.total_steps, config.train.checkpoint_every_steps, config.train.log_every_steps = STEPS, 20, 1
    return config


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("mae") / "run"
    loop.run(recipe, workdir)
    return workdir


def _rows(workdir: Path, name: str) -> list[float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [r[name] for r in rows if name in r]


@pytest.mark.slow
def test_training_restores_what_it_has_not_seen(run):
    """A decoder that answers zero has an error of one; every evaluation says how the features spread."""
    losses, ranks = _rows(run, "validation/loss"), _rows(run, "validation/effective_rank")
    assert losses[-1] < 0.9 * losses[0] < losses[0] and losses[-1] < 1
    assert len(ranks) == len(losses) == 10 and min(ranks) > 1.5


@pytest.mark.slow
def test_stopping_and_going_on_changes_no_bit(recipe, run, tmp_path):
    for stop in (25, None):
        loop.run(recipe, tmp_path / "run", stop_at_step=stop)
    stores = [CheckpointStore(w / "checkpoints") for w in (run, tmp_path / "run")]
    jax.tree.map(np.testing.assert_array_equal, *(s.restore_params(STEPS)[0] for s in stores))
    assert _rows(run, "train/loss") == _rows(tmp_path / "run", "train/loss")


def test_a_planted_collapse_is_flagged(recipe, phantom_dir, caplog, monkeypatch):
    """A last norm without scale answers its bias to everything."""
    monkeypatch.setattr(logging.getLogger("medjax"), "propagate", True)  # a run turns that off
    experiment = stages(recipe)[0][1]
    dataset, mesh = Dataset.open(experiment.data), make_mesh(MeshConfig(), jax.devices()[:1])
    method = make_method(experiment.method, specs(dataset))
    zero = jnp.int32(0)
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        params, state = method.init(jax.random.key(0), dataset.first_batch(0, 16).select(["image"]))
        validator = Validator(method, dataset, mesh, experiment)

        def rank(params):
            return validator(TrainState(zero, params, state, {}, zero, zero))["validation/effective_rank"]

        assert rank(params) > 1.5 and not caplog.records
        norm = params["towers"]["image"]["norm"]
        norm["scale"], norm["bias"] = jnp.zeros_like(norm["scale"]), jnp.ones_like(norm["bias"])
        with caplog.at_level("WARNING", "medjax"):
            assert rank(params) == 1
    assert "collapse: the image encoder" in caplog.text


def _step(devices: int, joint: bool):
    """Loss and parameters after a plain step of descent."""
    towers = {"image": {"name": "vit", "patch": 2, **BLOCKS}, "ecg": {"name": "ecg_vit", "patch": 2, **BLOCKS}}
    options = {"name": "masked_autoencoder", "towers": towers, "decoder": {"width": 8, "depth": 1, "heads": 2}}
    options["joint"] = joint
    method, mesh = make_method(options, SPECS), make_mesh(MeshConfig(), jax.devices()[:devices])
    tx = optax.sgd(1.0)
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        batch = to_global(make_batch(np.random.default_rng(0), 8, 1 if joint else 2, ("image", "ecg")), mesh)
        step = make_train_step(method, tx, lambda step: jnp.float32(1.0), seed=0)
        state, metrics = step(StateFactory(method, tx, mesh, batch).fresh(0), batch)
    return jax.tree.map(np.asarray, (metrics["train/loss"], state.params))


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_eight_devices_take_the_step_of_one(joint):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), _step(1, joint), _step(8, joint))


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_trained_encoder_is_a_plain_tower_and_is_probed(run):
    plain = make_tower("image", SMALL, {"kind": "image"})
    shapes = jax.eval_shape(plain.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 1), np.float32))
    trained = load_run(run).params["towers"]["image"]
    assert jax.tree.map(np.shape, unbox(shapes["params"])) == jax.tree.map(np.shape, trained)
    command = [sys.executable, "-m", "medjax.bin.evaluate_probe", f"--workdir={run}"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((run / "evaluation" / "probe" / "results.json").read_text())["probe"]["image"]
    assert {"trained", "untrained", "raw_input", "shuffled"} <= found.keys()
