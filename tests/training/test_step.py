"""One update: downhill where all is finite, and not a bit of change where anything is not."""

import functools
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from toy_method import Toy, toy_batch

from medjax import losses
from medjax.sharding import MeshConfig, make_mesh
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step

KEPT = ("params", "method", "optimizer", "ema")


@functools.cache
def compiled(micro_batch: int):
    """`(step, fresh state)`, the step of plain or accumulated gradients; it leaves its state to be used again."""
    method, tx = Toy(losses.get("info_nce", impl="dense")), optax.adam(0.1)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = StateFactory(method, tx, mesh, batch(), averages=True).fresh(0)
    step = make_train_step(method, tx, lambda step: 0.1 + step, 0, micro_batch=micro_batch, ema_decay=0.9)
    return lambda s, b: step(jax.tree.map(lambda x: x.copy(), s), b), state


def batch(row: int = 0, **changes: float):
    """A batch with one row changed: value of a modality, or a target."""
    made = toy_batch(np.random.default_rng(0))
    for name, value in changes.items():
        place = made.targets[name] if name in made.targets else made.items[name].value
        place[row] = value
    made.items["a"].mask[row] = made.items["b"].mask[row] = True
    return made


def assert_same(a, b):
    for name in KEPT:
        jax.tree.map(np.testing.assert_array_equal, getattr(a, name), getattr(b, name))


def test_a_step_moves_every_parameter_and_lowers_the_loss():
    step, state = compiled(0)
    new, metrics = step(state, batch())
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.any(a != b)), new.params, state.params)))
    again, later = state, None
    for _ in range(10):
        again, later = step(again, batch())
    assert float(later["train/loss"]) < float(metrics["train/loss"])
    assert (int(new.step), float(new.method["sum"]), int(new.skipped)) == (1, 8.0, 0)


def test_norms_are_those_of_what_they_name():
    step, state = compiled(0)
    new, metrics = step(state, batch())
    found = {k.removeprefix("train/"): float(v) for k, v in metrics.items() if "norm" in k}
    update = jax.tree.map(lambda a, b: a - b, new.params, state.params)
    assert found["parameter_norm"] == pytest.approx(float(optax.global_norm(state.params)))
    assert found["update_norm"] == pytest.approx(float(optax.global_norm(update)), rel=1e-5)
    # Adam's first moment is a tenth of the gradient.
    gradient = jax.tree.map(lambda m: np.asarray(m) * 10, new.optimizer[0].mu)
    assert found["gradient_norm"] == pytest.approx(float(optax.global_norm(gradient)), rel=1e-5)
    for m in "ab":
        norm = float(optax.global_norm(gradient["towers"][m]))
        assert found[f"gradient_norm/{m}"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize(("where", "value"), [("a", np.nan), ("gradient", np.inf), ("statistic", np.nan)])
def test_what_is_not_finite_changes_nothing_and_is_counted(micro_batch, where, value):
    """In the data, in the gradient of a finite loss, and in the statistics beside a finite loss and gradient."""
    step, fresh = compiled(micro_batch)
    state, _ = step(fresh, batch())
    bad, metrics = step(state, batch(row=1, **{where: value}))
    assert np.isfinite(float(metrics["train/loss"])) == (where != "a")
    assert np.isfinite(float(metrics["train/gradient_norm"])) == (where == "statistic")
    bad, metrics = step(bad, batch(row=6, **{where: value}))
    assert_same(bad, state)
    assert (int(bad.step), int(metrics["train/bad_steps"]), int(metrics["train/skipped_steps"])) == (3, 2, 2)
    good, metrics = step(bad, batch())
    assert (int(metrics["train/bad_steps"]), int(metrics["train/skipped_steps"])) == (0, 2)
    # The learning rate goes on where the optimizer's count does.
    assert int(good.optimizer[0].count) == 2 and float(metrics["train/learning_rate"]) == pytest.approx(1.1)


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_an_invalid_example_is_not_seen(micro_batch):
    step, state = compiled(micro_batch)
    made = [replace(batch(row=5, a=value), valid=np.arange(8) != 5) for value in (0.0, np.nan)]
    (a, metrics), (b, _) = (step(state, x) for x in made)
    assert_same(a, b)
    assert float(metrics["train/valid_fraction"]) == 7 / 8 and int(a.skipped) == 0
