"""The moving average of the weights: its arithmetic, where it lies, and how stops and evaluation treat it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_method import Toy, toy_batch

from medjax import losses
from medjax.bin.cli import load_config
from medjax.checkpoints import CheckpointStore
from medjax.errors import UserError
from medjax.methods.encoder import load_run
from medjax.sharding import MeshConfig, make_mesh
from medjax.training import ema, loop
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step

DECAY = 0.5


def test_the_average_is_that_of_the_parameters_so_far_with_a_warm_up():
    weights = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    average, expected = ema.begin({"w": jnp.asarray(weights[0])}), weights[0].astype(np.float64)
    update = jax.jit(ema.update)
    for n, w in enumerate(weights[1:]):
        average = update(average, {"w": jnp.asarray(w)}, jnp.int32(n), 0.8)
        decay = min(0.8, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * w
    np.testing.assert_allclose(average["w"], expected, rtol=1e-5)


def test_the_average_of_bfloat16_parameters_is_float32_and_follows_small_steps():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    average = ema.begin(jax.tree.map(lambda x: x * 0, params))
    for n in range(100):
        average = ema.update(average, params, jnp.int32(n + 10**6), 0.999)
    assert average["w"].dtype == jnp.float32
    np.testing.assert_allclose(average["w"], 1 - 0.999**100, rtol=1e-3)  # bfloat16 would stop at its rounding


def test_no_average_is_kept_unless_asked_for_nor_of_what_is_frozen():
    method, mesh = Toy(losses.get("info_nce")), make_mesh(MeshConfig(), jax.devices()[:1])
    batch, frozen = toy_batch(np.random.default_rng(0)), frozenset({"towers/a/kernel"})
    off = StateFactory(method, optax.sgd(1.0), mesh, batch, frozen).abstract()
    on = StateFactory(method, optax.sgd(1.0), mesh, batch, frozen, averages=True).abstract()
    assert not jax.tree.leaves(off.ema) and "ema" not in off.without_params() and "ema" not in off.for_evaluation()
    assert on.ema["towers"].keys() == {"a", "b"} and on.ema["towers"]["a"].keys() == {"bias"}
    step = make_train_step(method, optax.sgd(1.0), lambda s: 1.0, 0, frozen, ema_decay=0.0)
    assert not jax.tree.leaves(jax.eval_shape(step, off, batch)[0].ema)


def test_the_average_lies_as_its_parameter_and_begins_where_the_weights_do():
    class Wide(Toy):
        def init(self, key, batch):
            params, state = super().init(key, batch)
            return {**params, "wide": jnp.zeros((64, 512))}, state

    mesh = make_mesh(MeshConfig(replica=2, fsdp=4))
    batch = toy_batch(np.random.default_rng(0))
    factory = StateFactory(Wide(losses.get("info_nce")), optax.sgd(1.0), mesh, batch, averages=True)
    fresh = factory.fresh(0)
    assert fresh.params["wide"].sharding.shard_shape((64, 512)) == (64, 128)
    state = factory.starting_from(fresh, jax.tree.map(lambda x: x + 1, fresh.params), fresh.method)
    for p, a in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.ema), strict=True):
        assert a.sharding == p.sharding and a is not p
        np.testing.assert_array_equal(a, p)


@pytest.fixture(scope="module")
def recipe(phantom_dir, pytestconfig):
    config = load_config(f"{pytestconfig.rootpath / 'configs' / 'phantom.py'}:tiny,objective=info_nce,steps=2")
    config.data.dir, config.data.modalities = str(phantom_dir), {"labs": {}, "image": {"size": 32}}
    mlp = {"name": "mlp", "hidden": (8,)}
    vit = {"name": "vit", "patch": 16, "width": 8, "depth": 1, "heads": 2}
    config.method.towers, config.method.objectives = {"labs": mlp, "image": vit}, {"info_nce": {}}
    config.train.ema_decay, config.train.weights = DECAY, "ema"
    config.train.checkpoint_every_steps = config.train.eval_every_steps = 1
    del config.train["checkpoint_every_percent"], config.train["eval_every_percent"]
    return config


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_a_run_keeps_its_average_over_a_stop_and_evaluates_by_it(recipe, tmp_path):
    run = tmp_path / "run"
    loop.run(recipe, run, stop_at_step=1)
    loop.run(recipe, run)
    # The first two updates have decays of 1 / 10 and 2 / 11.
    raw = [load_run(run, step, "raw").params for step in ("untrained", "1", "2")]
    average = jax.tree.map(lambda a, b, c: 2 / 11 * (a / 10 + b * 9 / 10) + 9 / 11 * c, *raw)
    found = load_run(run, "2", "ema").params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, average)
    assert_same(load_run(run, "2").params, found)  # what the run validates with
    assert_same(load_run(run, "untrained", "ema").params, raw[0])
    assert CheckpointStore(run / "best", read_only=True).restore_rest(load_run(run).step, "ema")


def test_weights_that_a_run_does_not_have_are_an_error(phantom_run):
    with pytest.raises(UserError, match="keeps no moving average"):
        load_run(phantom_run, "last", "ema")
    with pytest.raises(UserError, match="weights 'mean'"):
        load_run(phantom_run, "last", "mean")


def test_an_average_out_of_range_or_missing_is_an_error(recipe, tmp_path):
    for name, value, word in (("ema_decay", 1.0, r"must be in \[0, 1\)"), ("ema_decay", 0.0, "needs an average")):
        config = recipe.copy_and_resolve_references()
        config.train[name] = value
        with pytest.raises(UserError, match=word):
            loop.run(config, tmp_path / "run")
