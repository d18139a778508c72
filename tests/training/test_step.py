"""One update: what is not finite changes nothing."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.data.batch import Batch, Items
from medjax.losses import Loss, Term
from medjax.methods.base import Encoded
from medjax.training.state import TrainState
from medjax.training.step import make_train_step


@dataclass(frozen=True)
class Squares:
    """The least method there is: one weight, and the sum of squares of what it makes of the valid values."""

    modalities: tuple[str, ...] = ("x",)

    def encode(self, params, state, batch, key, train):
        x = jnp.where(batch.items["x"].present[:, None], batch.items["x"].value[:, 0], 0.0)
        return Encoded(pooled={"x": params["w"] * x}, present={"x": batch.items["x"].present})

    def objective(self, encoded, params, state, batch, key):
        total = jnp.sum(encoded.pooled["x"] ** 2)
        return Loss.of("squares", {"x": Term(total, jnp.float32(1.0))}), {"seen": state["seen"] + 1}

    def after_update(self, params, state):
        return params, {"seen": state["seen"] * 1}


def _batch(values, valid) -> Batch:
    values = np.asarray(values, np.float32)[:, None, None]
    n = len(values)
    items = {"x": Items(values, np.ones((n, 1), bool))}
    return Batch(items, {}, np.zeros(n, np.float32), np.asarray(valid), {}, np.arange(n, dtype=np.int32))


@pytest.fixture
def step_and_state():
    tx = optax.adam(0.1)
    params = {"w": jnp.float32(2.0)}
    # Each leaf a buffer of its own, since a step takes over those of the state before.
    step, bad, skipped = (jnp.array(0, jnp.int32) for _ in range(3))
    state = TrainState(step, params, {"seen": jnp.array(0, jnp.int32)}, tx.init(params), bad, skipped)
    return make_train_step(Squares(), tx, lambda step: 0.1, seed=0), state


def test_a_step_moves_the_parameters_downhill(step_and_state):
    step, state = step_and_state
    state, metrics = step(state, _batch([1.0, 2.0], [True, True]))
    assert float(metrics["train/loss"]) == pytest.approx(20.0)
    assert float(state.params["w"]) < 2.0
    assert (int(state.step), int(state.method["seen"]), int(state.skipped)) == (1, 1, 0)


def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted(step_and_state):
    step, state = step_and_state
    state, _ = step(state, _batch([1.0, 2.0], [True, True]))
    before = jax.tree.map(np.asarray, (state.params, state.method, state.optimizer))
    state, metrics = step(state, _batch([np.inf, 1.0], [True, True]))
    state, metrics = step(state, _batch([np.nan, 1.0], [True, True]))
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.method, state.optimizer), before)
    assert (int(state.step), int(metrics["train/bad_steps"]), int(metrics["train/skipped_steps"])) == (3, 2, 2)
    state, metrics = step(state, _batch([1.0, 2.0], [True, True]))
    assert (int(metrics["train/bad_steps"]), int(metrics["train/skipped_steps"])) == (0, 2)
    assert float(state.params["w"]) != float(before[0]["w"])


def test_an_invalid_example_is_not_seen(step_and_state):
    step, state = step_and_state
    _, metrics = step(state, _batch([1.0, np.inf], [True, False]))
    assert float(metrics["train/loss"]) == pytest.approx(4.0)
    assert float(metrics["train/valid_fraction"]) == 0.5
