"""Starting from another run's parameters takes what is named and nothing else."""

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.training.warm_start import take_parameters

HERE = {"towers": {"image": {"w": jnp.zeros((2, 3))}, "text": {"w": jnp.zeros(4)}}, "heads": {"image": jnp.zeros(2)}}
THERE = {"towers": {"image": {"w": np.ones((2, 3))}}, "heads": {"image": np.ones(2)}, "decoders": {"w": np.ones(1)}}


def test_matching_parameters_are_taken_and_others_left():
    out = take_parameters(HERE, THERE, "towers/.*")
    assert np.all(np.asarray(out["towers"]["image"]["w"]) == 1)
    assert np.all(np.asarray(out["towers"]["text"]["w"]) == 0)
    assert np.all(np.asarray(out["heads"]["image"]) == 0)
    assert out["towers"]["image"]["w"].dtype == jnp.float32


def test_other_shapes_are_named():
    other = {"towers": {"image": {"w": np.ones((2, 5))}}}
    with pytest.raises(UserError, match=r"towers/image/w: \[2, 5\] there, \[2, 3\] here"):
        take_parameters(HERE, other, "towers/.*")


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UserError, match=r"include='backbone/\.\*' matches no parameter"):
        take_parameters(HERE, THERE, "backbone/.*")
