"""A run that was stopped and went on ends as one that never stopped, bit for bit."""

import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from data_sets import damaged_copy

from medjax.bin.cli import load_config
from medjax.checkpoints import CheckpointStore
from medjax.errors import UserError
from medjax.training import loop

STEPS = 6


@pytest.fixture(scope="module")
def recipe(phantom_dir, pytestconfig, tmp_path_factory):
    """A recipe with everything that must survive a stop: dropout, augmentation, drawn negatives, moments, and counts of
    records that cannot be read."""
    data = damaged_copy(phantom_dir, tmp_path_factory.mktemp("damaged") / "data")
    config = load_config(f"{pytestconfig.rootpath / 'configs' / 'phantom.py'}:tiny,steps={STEPS}")
    config.data.dir, config.data.modalities.image.size = str(data), 32
    config.data.max_invalid_fraction = 1.0
    config.method.towers.text.dropout = 0.1
    config.train.checkpoint_every_steps, config.train.eval_every_steps = 2, 3
    del config.train["checkpoint_every_percent"], config.train["eval_every_percent"]
    config.train.log_every_steps = 1
    config.train.keep = 3
    return config


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    loop.run(recipe, workdir)
    return workdir


def _parameters(workdir: Path, step: int = STEPS):
    return CheckpointStore(workdir / "checkpoints").restore_params(step)[0]


def _assert_same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _losses(workdir: Path) -> dict[int, float]:
    rows = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
    return {r["step"]: r["train/loss"] for r in rows if "train/loss" in r}


def _ledger(workdir: Path) -> dict[str, dict[str, int]]:
    return CheckpointStore(workdir / "checkpoints").meta(STEPS)["ledger"]


def test_training_moves_every_parameter(uninterrupted):
    before = CheckpointStore(uninterrupted / "untrained").restore_params(0)[0]
    after = _parameters(uninterrupted)
    still = [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        if np.array_equal(a, b)
    ]
    # The bias of keys shifts every attention logit of a query alike, so its gradient is exactly or nearly zero.
    assert [s for s in still if "['key']['bias']" not in s] == []


def test_stopping_and_going_on_changes_no_bit(recipe, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    for stop in (1, 4):
        loop.run(recipe, workdir, stop_at_step=stop)
    loop.run(recipe, workdir)
    _assert_same(_parameters(workdir), _parameters(uninterrupted))
    assert _losses(workdir) == _losses(uninterrupted)
    assert _ledger(workdir) == _ledger(uninterrupted) != {}


@pytest.mark.slow
def test_the_same_with_reading_threads_and_without_a_cache(recipe, uninterrupted, tmp_path):
    config = recipe.copy_and_resolve_references()
    config.data.threads = 3
    loop.run(config, tmp_path / "threads")
    _assert_same(_parameters(tmp_path / "threads"), _parameters(uninterrupted))


def test_a_finished_run_is_left_alone(recipe, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_text()
    loop.run(recipe, uninterrupted)
    assert (uninterrupted / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_unusable_examples_count_across_restarts_until_they_stop_the_run(recipe, uninterrupted, tmp_path):
    config = recipe.copy_and_resolve_references()
    workdir, total = tmp_path / "run", sum(sum(c.values()) for c in _ledger(uninterrupted).values())
    loop.run(config, workdir, stop_at_step=4)
    config.data.max_invalid = total - 1
    with pytest.raises(UserError, match=rf"{total} examples .* more than config.data.max_invalid={total - 1}"):
        loop.run(config, workdir)
    config.data.max_invalid = total
    loop.run(config, workdir)
    assert _ledger(workdir) == _ledger(uninterrupted)


@pytest.mark.slow
def test_another_batch_size_goes_on_where_the_examples_stopped(recipe, tmp_path):
    config = recipe.copy_and_resolve_references()
    loop.run(config, tmp_path / "run", stop_at_step=2)
    config.data.batch_size //= 2
    loop.run(config, tmp_path / "run", stop_at_step=4)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert store.meta(4)["examples_seen"] == 6 * config.data.batch_size


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_kept_aside_and_made_good(recipe, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    loop.run(recipe, workdir, stop_at_step=4)
    victim = max((workdir / "checkpoints" / "4" / "params").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 1
    victim.write_bytes(raw)
    loop.run(recipe, workdir)
    assert [p.name.split("-")[0] for p in (workdir / "checkpoints" / "damaged").iterdir()] == ["4"]
    logging.shutdown()
    assert "checkpoint 4 is damaged" in (workdir / "train.log").read_text()
    _assert_same(_parameters(workdir), _parameters(uninterrupted))


def test_a_workdir_is_not_gone_on_with_under_another_configuration(recipe, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    config = recipe.copy_and_resolve_references()
    config.optimizer.lr, config.method.embed_dim = 0.5, 8
    with pytest.raises(UserError, match=r"another method\.embed_dim, optimizer\.lr"):
        loop.run(config, workdir)


def test_the_workdir_says_what_made_it(recipe, uninterrupted, phantom_dir):
    config = json.loads((uninterrupted / "config.json").read_text())
    assert config["method"]["towers"]["text"]["dropout"] == 0.1
    about = json.loads((uninterrupted / "versions.json").read_text())
    assert about["packages"]["jax"] == jax.__version__
    from medjax.data import manifest

    assert about["data_manifest_sha256"] == manifest.load(phantom_dir).digest()
