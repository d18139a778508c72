"""The running statistics of a run: carried over a stop, kept with its checkpoints, read wherever it is evaluated."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from medjax.bin.cli import load_config
from medjax.checkpoints import CheckpointStore
from medjax.methods.encoder import load_run
from medjax.training import loop

STEPS = 3


@pytest.fixture(scope="module")
def recipe(phantom_dir, pytestconfig):
    config = load_config(f"{pytestconfig.rootpath / 'configs' / 'phantom.py'}:tiny,objective=info_nce,steps={STEPS}")
    config.data.dir = str(phantom_dir)
    config.data.modalities = {"image": {"size": 32}, "labs": {}}
    resnet = {"name": "resnet", "stem": 4, "depths": (1,), "widths": (8,), "block": "basic"}
    config.method.towers = {"image": resnet, "labs": {"name": "mlp", "hidden": (8,)}}
    config.method.objectives = {"info_nce": {}}
    config.train.checkpoint_every_steps, config.train.eval_every_steps = 1, 1
    del config.train["checkpoint_every_percent"], config.train["eval_every_percent"]
    config.train.keep = STEPS
    return config


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    loop.run(recipe, workdir)
    return workdir


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_a_stop_changes_no_bit_of_parameters_and_statistics(recipe, uninterrupted, tmp_path):
    loop.run(recipe, tmp_path / "run", stop_at_step=1)
    loop.run(recipe, tmp_path / "run")
    a, b = (load_run(w, str(STEPS)) for w in (tmp_path / "run", uninterrupted))
    assert_same((a.params, a.state), (b.params, b.state))


def test_checkpoints_hold_the_statistics_of_their_step(uninterrupted):
    counts = {}
    for checkpoint in ("untrained", "1", "last"):
        stats = load_run(uninterrupted, checkpoint).state["batch_stats"]["image"]
        counts[checkpoint] = int(stats["stem"]["norm"]["batches"])
    assert counts == {"untrained": 0, "1": 1, "last": STEPS}
    best = load_run(uninterrupted, "best")
    same = CheckpointStore(uninterrupted / "checkpoints", read_only=True)
    assert_same(best.state, same.restore_rest(best.step, "method"))
    assert_same(best.params, same.restore_params(best.step)[0])


def test_evaluation_of_a_run_reads_its_statistics(uninterrupted):
    encoder = load_run(uninterrupted, "last")
    pictures = [np.full((32, 32), 255, np.uint8), np.eye(32, dtype=np.uint8) * 255]
    found = encoder.embed({"image": pictures})["image"]
    untrained = load_run(uninterrupted, "untrained").state
    assert np.abs(found - replace(encoder, state=untrained).embed({"image": pictures})["image"]).max() > 1e-3


def test_a_stage_starts_with_the_statistics_of_the_one_before(recipe, uninterrupted, tmp_path):
    config = recipe.copy_and_resolve_references()
    config.warm_start.dir = str(uninterrupted)
    loop.run(config, tmp_path / "run", stop_at_step=1)
    stats = load_run(tmp_path / "run", "last").state["batch_stats"]["image"]
    assert int(stats["stem"]["norm"]["batches"]) == STEPS + 1
