"""Running statistics of batch norms as state of a method: training moves them, evaluation reads them."""

import functools
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from methods_batch import SPECS, complete, make_batch

from medjax.errors import UserError
from medjax.methods import make_method
from medjax.sharding import MeshConfig, make_mesh
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step, make_validation_step

RESNET = {"stem": 4, "depths": (1,), "widths": (8,), "block": "basic"}
OPTIONS = {
    "name": "contrastive",
    "towers": {
        "image": {"name": "resnet", **RESNET},
        "labs": {"name": "mlp", "hidden": (8,)},
    },
    "embed_dim": 6,
    "head": {"centre": True, "normalise": False},
    "objectives": {"info_nce": {}},
}
KEY = jax.random.key(9)
ROWS = 8


def batch_of(seed: int):
    return make_batch(np.random.default_rng(seed), rows=ROWS, modalities=("image", "labs"))


@functools.cache
def compiled():
    """(method, fresh state, training step, validation step)."""
    method, tx = make_method(OPTIONS, SPECS), optax.sgd(0.1)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = StateFactory(method, tx, mesh, batch_of(1)).fresh(0)
    step = make_train_step(method, tx, optax.constant_schedule(0.1), 0)
    return method, state, lambda s, b: step(jax.tree.map(lambda x: x.copy(), s), b), make_validation_step(method, 0)


def changed(a, b) -> list[bool]:
    return jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.any(x != y)), a, b))


def test_only_towers_with_batch_norms_have_statistics():
    _, state, *_ = compiled()
    assert state.method.keys() == {"batch_stats"}
    assert state.method["batch_stats"].keys() == {"image"}


def test_a_training_step_moves_every_running_statistic():
    _, state, step, _ = compiled()
    new, _ = step(state, batch_of(2))
    assert all(changed(new.method, state.method))
    assert all(int(x) == 1 for x in jax.tree.leaves(new.method) if x.dtype == np.int32)


def test_evaluation_reads_running_statistics_and_moves_none():
    method, state, step, validate = compiled()
    batch = batch_of(2)
    new, _ = step(state, batch)
    fresh, _ = validate(state.params, state.method, batch)
    used, _ = validate(state.params, new.method, batch)
    assert not fresh.updates and not used.updates
    assert np.abs(fresh.pooled["image"] - used.pooled["image"]).max() > 1e-3
    np.testing.assert_array_equal(fresh.pooled["labs"], used.pooled["labs"])
    assert method.objective(used, state.params, new.method, batch, KEY)[1] is new.method


def test_absent_items_and_invalid_rows_move_nothing():
    _, state, step, _ = compiled()
    valid = np.arange(ROWS) != 3
    batch, other = (replace(batch_of(2), valid=valid) for _ in range(2))
    there = batch.items["image"].mask & valid[:, None]
    value = np.where(there[..., None, None, None], batch.items["image"].value, 50)
    other = replace(other, items={**other.items, "image": replace(other.items["image"], value=value)})
    a, b = step(state, batch)[0], step(state, other)[0]
    assert not any(changed(a, b))


def test_a_batch_without_the_modality_leaves_its_statistics():
    _, state, step, _ = compiled()
    batch = batch_of(2)
    image = replace(batch.items["image"], mask=np.zeros_like(batch.items["image"].mask))
    new, metrics = step(state, replace(batch, items={**batch.items, "image": image}))
    assert not any(changed(new.method, state.method))
    assert np.isfinite(float(metrics["train/loss"])) and int(metrics["train/skipped_steps"]) == 0


def test_a_step_that_is_not_finite_leaves_the_statistics():
    _, state, step, _ = compiled()
    batch = complete(batch_of(2))
    image = replace(batch.items["image"], value=np.full_like(batch.items["image"].value, np.nan))
    new, metrics = step(state, replace(batch, items={**batch.items, "image": image}))
    assert int(metrics["train/skipped_steps"]) == 1
    assert not any(changed(new.method, state.method))


def test_centred_heads_start_at_a_mean_of_zero_under_batch_statistics():
    (method, state, *_), batch = compiled(), batch_of(1)
    encoded = jax.jit(lambda: method.encode(state.params, state.method, batch, KEY, True))()
    there = np.asarray(encoded.items["image"])[batch.items["image"].mask]
    assert np.abs(there.mean(axis=0)).max() < 1e-5
    assert there.std() > 1e-2


def test_a_masked_autoencoder_refuses_towers_without_patches():
    towers = {"image": OPTIONS["towers"]["image"]}
    with pytest.raises(UserError, match="needs an encoder of patches"):
        make_method({"name": "masked_autoencoder", "towers": towers}, SPECS)
