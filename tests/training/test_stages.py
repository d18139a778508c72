"""A two-stage recipe: the second stage starts from the encoders of the first."""

import jax
import numpy as np
import pytest

from medjax.bin.cli import load_config
from medjax.checkpoints import CheckpointStore
from medjax.errors import UserError
from medjax.methods.encoder import load_run
from medjax.training import loop


@pytest.fixture
def recipe(phantom_dir, pytestconfig):
    config = load_config(f"{pytestconfig.rootpath / 'configs' / 'mae_then_contrastive.py'}:tiny,steps=3")
    config.data.dir, config.data.modalities.image.size = str(phantom_dir), 32
    config.train.eval_every_percent = config.train.checkpoint_every_percent = 100
    return config


@pytest.mark.slow
def test_the_second_stage_starts_from_the_towers_of_the_first(recipe, tmp_path):
    # With a learning rate of zero the second stage ends as it began.
    recipe.stage.contrastive.optimizer = dict(lr=0.0)
    loop.run(recipe, tmp_path / "run")
    first = load_run(tmp_path / "run" / "stages" / "autoencoder", "last")
    second = load_run(tmp_path / "run", "last")
    assert set(second.modalities) == {"image", "ecg", "labs", "text"}
    for m in first.modalities:
        jax.tree.map(np.testing.assert_array_equal, first.params["towers"][m], second.params["towers"][m])
    fresh = CheckpointStore(tmp_path / "run" / "untrained").restore_params(0)[0]
    moved = (
        fresh["towers"]["image"]["patch_embed"]["kernel"] != second.params["towers"]["image"]["patch_embed"]["kernel"]
    )
    assert np.mean(np.asarray(moved)) > 0.9


@pytest.mark.slow
def test_a_stopped_second_stage_goes_on_to_the_same_end(recipe, tmp_path):
    loop.run(recipe, tmp_path / "whole")
    loop.run(recipe, tmp_path / "parts", stop_at_step=2)
    loop.run(recipe, tmp_path / "parts")
    a, b = (load_run(tmp_path / name, "last").params for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_error_in_the_last_stage_is_found_before_the_first_starts(recipe, tmp_path):
    recipe.stage.contrastive.method.objectives = dict(symil=dict())
    with pytest.raises(UserError, match="did you mean 'symile'"):
        loop.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
