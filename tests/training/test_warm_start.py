"""Starting from another run's parameters takes what is named and nothing else."""

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.training.warm_start import take_weights

HERE = {"towers": {"image": {"w": jnp.zeros((2, 3))}, "text": {"w": jnp.zeros(4)}}, "heads": {"image": jnp.zeros(2)}}
THERE = {"towers": {"image": {"w": np.ones((2, 3))}}, "heads": {"image": np.ones(2)}, "decoders": {"w": np.ones(1)}}


def test_matching_parameters_are_taken_and_others_left():
    out, state = take_weights((HERE, {"queue": 1}), (THERE, {}), "towers/.*")
    assert state == {"queue": 1}
    assert np.all(np.asarray(out["towers"]["image"]["w"]) == 1)
    assert np.all(np.asarray(out["towers"]["text"]["w"]) == 0)
    assert np.all(np.asarray(out["heads"]["image"]) == 0)
    assert out["towers"]["image"]["w"].dtype == jnp.float32


def test_other_shapes_are_named():
    other = {"towers": {"image": {"w": np.ones((2, 5))}}}
    with pytest.raises(UserError, match=r"towers/image/w: \[2, 5\] there, \[2, 3\] here"):
        take_weights((HERE, {}), (other, {}), "towers/.*")


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UserError, match=r"include='backbone/\.\*' matches no parameter"):
        take_weights((HERE, {}), (THERE, {}), "backbone/.*")


def test_running_statistics_follow_the_parameters_of_their_tower():
    here, there = (
        {"batch_stats": {"image": {"mean": one(2)}, "ecg": {"mean": one(3)}}} for one in (jnp.zeros, np.ones)
    )
    _, state = take_weights((HERE, here), (THERE, there), "towers/image/.*")
    assert np.all(np.asarray(state["batch_stats"]["image"]["mean"]) == 1)
    assert np.all(np.asarray(state["batch_stats"]["ecg"]["mean"]) == 0)
    _, state = take_weights((HERE, here), (THERE, {}), "towers/.*")
    assert np.all(np.asarray(state["batch_stats"]["image"]["mean"]) == 0)
