"""Learning rates over a run: shapes, durations, and schedules of single towers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.config import build
from medjax.errors import UserError
from medjax.training.experiment import stages
from medjax.training.optimizer import Optimizer, OptimizerConfig
from medjax.training.schedules import ScheduleConfig, make_schedule


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_schedule_warms_up_peaks_and_ends_where_it_should(kind):
    config = ScheduleConfig(lr=0.4, schedule=kind, final_lr_fraction=0.25)
    schedule = make_schedule(config, total_steps=100, warmup_steps=10)
    np.testing.assert_allclose([schedule(0), schedule(5), schedule(10)], [0.0, 0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(schedule(55), 0.4 * (0.25 + 0.75 * 0.5), rtol=1e-6)  # half-way is half-way in both
    np.testing.assert_allclose(schedule(100), 0.1, rtol=1e-6)


def rates(total=100, warmup=10, cooldown=0, timescale=10_000, delay=0, **options):
    schedule = make_schedule(ScheduleConfig(lr=0.4, **options), total, warmup, cooldown, timescale, delay)
    return np.asarray(jax.vmap(schedule)(jnp.arange(total + 1)))


def test_reciprocal_root_polynomial_and_cool_down_follow_their_formulas():
    t = np.arange(101)
    warm = np.minimum(1.0, t / 10)
    np.testing.assert_allclose(
        rates(schedule="rsqrt", timescale=20, cooldown=30),
        0.4 * warm / np.sqrt(1 + np.maximum(t - 10, 0) / 20) * np.minimum(1.0, (100 - t) / 30),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        rates(schedule="polynomial", power=3.0), 0.4 * np.where(t < 10, t / 10, ((100 - t) / 90) ** 3), atol=1e-6
    )
    stable = rates(schedule="constant", cooldown=20, final_lr_fraction=0.1)
    assert (
        np.allclose(stable[10:81], 0.4)
        and stable[90] == pytest.approx(0.4 * 0.55)
        and stable[100] == pytest.approx(0.04)
    )


def test_a_delayed_schedule_is_zero_and_then_the_same_in_what_is_left_of_the_run():
    delayed = rates(delay=40)
    assert not delayed[:41].any()
    np.testing.assert_allclose(delayed[40:], rates(total=60), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (dict(cooldown=5), "schedule='cosine' has no cool-down"),
        (dict(schedule="constant", cooldown=95), "take 105 steps and the run has 100"),
        (dict(delay=95), "take 105 steps"),
    ],
)
def test_schedules_that_do_not_fit_are_errors(options, word):
    with pytest.raises(UserError, match=word):
        rates(**options)


PARAMS = {"towers": {"image": {"kernel": jnp.ones((2, 2))}, "text": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}}
NAMES = ("towers/image/kernel", "towers/text/kernel", "towers/text/bias")


def recipe(**optimizer):
    sections = {"data": {"dir": "", "modalities": {}, "batch_size": 4}, "method": {}, "train": {"total_epochs": 4}}
    return sections | {"optimizer": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0} | optimizer}


def test_a_tower_has_a_schedule_of_its_own_in_durations_of_any_unit():
    own = (
        ("towers/text/bias", {"schedule": "constant", "lr": 3.0, "warmup_steps": 0}),
        ("towers/text/.*", {"delay_epochs": 1, "lr": 0.5}),
    )
    ((_, experiment),) = stages(recipe(lr=1.0, schedule="constant", warmup_percent=25, schedules=own))
    steps = experiment.steps(examples=40)  # ten steps an epoch
    optimizer = Optimizer.create(experiment.optimizer, steps, lambda: NAMES)
    state, seen = optimizer.tx.init(PARAMS), []
    update = jax.jit(lambda state: optimizer.tx.update(PARAMS, state, PARAMS))
    for _ in range(25):
        updates, state = update(state)
        seen.append([-float(x.ravel()[0]) for x in jax.tree.leaves(updates)])  # image kernel, text bias, text kernel
    t = np.arange(25)
    np.testing.assert_allclose(np.asarray(seen)[:, 0], np.minimum(1.0, t / 10), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(seen)[:, 1], 3.0)
    np.testing.assert_allclose(np.asarray(seen)[:, 2], 0.5 * np.clip((t - 10) / 10, 0.0, 1.0), rtol=1e-6)
    reported = {p: float(s(15)) for p, s in optimizer.rates.special.items()}
    assert reported == {"towers/text/bias": 3.0, "towers/text/.*": 0.25}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"schedules": (("a", {"warm_steps": 3}),)}, r"unknown key config.optimizer.schedules\['a'\].warm_steps"),
        ({"schedules": (("a", {"lr": "x"}),)}, r"schedules\['a'\].lr must be float"),
        ({"schedules": (("a", {"delay_steps": -1}),)}, "must be a number of steps"),
        ({"schedules": ("a",)}, r"schedules\[0\] must be a tuple"),
        (
            {"name": "lion", "eps": 1e-3},
            "eps=0.001 is an option of adamw, lamb, adafactor, muon; lion has b1, b2; leave",
        ),
        ({"momentum": 0.5}, "momentum=0.5 is an option of adafactor, muon, sgd; adamw has b1, b2, eps"),
        ({"clip_ratio": -1.0}, "clip_ratio=-1.0 must not be negative; 0 is none"),
        ({"name": "adam"}, "'adam'; did you mean 'adamw'"),
    ],
)
def test_wrong_options_are_named(options, word):
    with pytest.raises(UserError, match=word):
        build(OptimizerConfig, options, "config.optimizer")


def test_a_schedule_for_parameters_that_do_not_exist_is_an_error():
    with pytest.raises(UserError, match=r"schedules: 'towers/ecg/\.\*' matches no parameter in full"):
        Optimizer.create(OptimizerConfig(schedules=(("towers/ecg/.*", {}),)), {"total": 9}, lambda: NAMES)


def test_a_schedule_that_does_not_fit_the_run_is_named():
    config = OptimizerConfig(schedule="constant", schedules=(("towers/text/.*", {"schedule": "cosine"}),))
    with pytest.raises(UserError, match=r"^config.optimizer.schedules\['towers/text/\.\*'\]: a learning rate with"):
        Optimizer.create(config, {"total": 9, "cooldown": 3}, lambda: NAMES)
