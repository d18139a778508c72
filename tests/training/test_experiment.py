"""A recipe is checked as a whole before anything starts."""

import pytest

from medjax.bin.cli import load_config
from medjax.errors import UserError
from medjax.training.experiment import stages


@pytest.fixture
def recipe(pytestconfig):
    """The tiny phantom recipe as a plain dict."""
    return load_config(f"{pytestconfig.rootpath / 'configs' / 'phantom.py'}:tiny").to_dict()


@pytest.fixture
def two_stages(pytestconfig):
    return load_config(f"{pytestconfig.rootpath / 'configs' / 'mae_then_contrastive.py'}:tiny").to_dict()


@pytest.mark.parametrize(
    ("section", "key", "hint"),
    [
        ("train", "best_metrik", "best_metric"),
        ("optimizer", "weight_decai", "weight_decay"),
        ("data", "batchsize", "batch_size"),
        ("mesh", "fdsp", "fsdp"),
    ],
)
def test_a_misspelt_key_names_the_nearest(recipe, section, key, hint):
    recipe[section][key] = 1
    with pytest.raises(UserError, match=rf"config\.{section}\.{key}; did you mean '{hint}'"):
        stages(recipe)


def test_every_problem_is_named_at_once(recipe):
    recipe["data"]["threds"] = 1
    recipe["data"]["batch_size"] = "many"
    with pytest.raises(
        UserError, match=r"threds.*config\.data\.batch_size must be int|config\.data\.batch_size.*threds"
    ):
        stages(recipe)


def test_a_recipe_without_a_total_is_refused(recipe):
    del recipe["train"]["total_steps"]
    with pytest.raises(UserError, match="total_steps, total_epochs or total_examples"):
        stages(recipe)


def test_durations_become_steps(recipe):
    recipe["train"] = dict(total_epochs=2, eval_every_percent=50, log_every_steps=3)
    [(name, experiment)] = stages(recipe)
    assert name == ""
    steps = experiment.steps(examples=160)  # batches of 16
    assert (steps["total"], steps["eval_every"], steps["log_every"], steps["checkpoint_every"]) == (20, 10, 3, 0)


def test_stages_lay_their_changes_over_the_rest_and_replace_the_method(two_stages):
    plan = stages(two_stages)
    assert [name for name, _ in plan] == ["autoencoder", "contrastive"]
    first, second = (e for _, e in plan)
    assert first.method["name"] == "masked_autoencoder" and second.method["name"] == "contrastive"
    assert "mask_ratio" not in second.method
    assert set(first.data.modalities) == {"image", "ecg"}
    assert set(second.data.modalities) == {"image", "ecg", "labs", "text"}
    assert second.data.batch_size == first.data.batch_size


def test_an_unknown_stage_names_the_nearest(two_stages):
    two_stages["stages"] = ("autoencoder", "contrastiv")
    with pytest.raises(UserError, match="did you mean 'contrastive'"):
        stages(two_stages)


def test_what_cannot_differ_by_stage_is_refused(two_stages):
    two_stages["stage"]["contrastive"]["seed"] = 3
    with pytest.raises(UserError, match=r"config\.stage\.contrastive\.seed cannot differ"):
        stages(two_stages)
