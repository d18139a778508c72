"""The recipes of published systems: their objectives train every encoder, and `tiny` changes sizes alone."""

from pathlib import Path

import jax
import numpy as np
import pytest

from medjax.bin.cli import load_config
from medjax.data import Dataset
from medjax.methods import make_method
from medjax.training.experiment import stages
from medjax.training.selection import frozen_names, parameter_names

CONFIGS = Path(__file__).parents[2] / "configs"
SYSTEMS = sorted(p.stem for p in CONFIGS.glob("*.py") if "published_recipe(" in p.read_text())


@pytest.mark.parametrize("system", [s if s == "siglip" else pytest.param(s, marks=pytest.mark.slow) for s in SYSTEMS])
def test_one_batch_gives_every_encoder_a_gradient(system, phantom_dir):
    config = load_config(f"{CONFIGS / system}.py:tiny")
    config.data.dir, config.data.modalities.image.size = str(phantom_dir), 32
    ((_, experiment),) = stages(config)
    dataset = Dataset.open(experiment.data)
    method = make_method(experiment.method, {m: t.spec() for m, t in dataset.transforms.items()})
    batch = next(dataset.train(0, 0, 16, 0, 1)).only_valid()
    params, state = jax.jit(method.init)(jax.random.key(0), batch)

    def loss(params):
        encoded = method.encode(params, state, batch, jax.random.key(1), True)
        return method.objective(encoded, params, state, batch, jax.random.key(2))[0].mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value) and value != 0
    for modality, tower in gradient["towers"].items():
        leaves = jax.tree.leaves(tower)
        assert all(np.isfinite(g).all() for g in leaves)
        assert np.mean([np.any(g != 0) for g in leaves]) > 0.8, modality  # keys' biases have none


@pytest.mark.parametrize("system", SYSTEMS)
def test_tiny_keeps_the_objectives(system):
    full, tiny = (load_config(f"{CONFIGS / system}.py{arg}").method for arg in ("", ":tiny"))
    assert set(full.objectives) == set(tiny.objectives)
    for name, options in full.objectives.items():
        assert options.to_dict() | {"prototypes": 0} == tiny.objectives[name].to_dict() | {"prototypes": 0}
    size = "stem" if full.towers.image.name == "resnet" else "width"
    assert tiny.towers.image[size] < full.towers.image[size]


def test_more_with_lora_trains_biases_and_low_rank_paths_of_the_text_encoder_alone(phantom_dir):
    config = load_config(f"{CONFIGS / 'more'}.py:tiny,lora")
    config.data.dir, config.data.modalities.image.size = str(phantom_dir), 32
    ((_, experiment),) = stages(config)
    dataset = Dataset.open(experiment.data)
    method = make_method(experiment.method, {m: t.spec() for m, t in dataset.transforms.items()})
    batch = next(dataset.train(0, 0, 16, 0, 1)).only_valid()
    names = parameter_names(jax.eval_shape(method.init, jax.random.key(0), batch)[0])
    frozen = frozen_names(experiment.optimizer.freeze, names)
    assert {n.split("/")[1] for n in frozen} == {"text"}
    text = {n for n in names if n.split("/")[1] == "text" and n not in frozen and not n.startswith("heads/")}
    low = {n for n in text if n.startswith("lora/")}
    path = "lora/text/blocks/block_0/attention"
    assert low == {f"{path}/{layer}/{matrix}" for layer in ("query", "value") for matrix in "ab"}
    assert text - low and all(n.endswith("/bias") for n in text - low)
