"""Sequential fusion and modality dropout: every row for itself, whatever it lacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models.fusion import SequentialFusion, modality_dropout
from medjax.models.partitioning import unbox

NAMES = ("ecg", "image", "labs")
WIDTHS = dict(zip(NAMES, (3, 5, 2), strict=True))
FUSION = SequentialFusion(NAMES, width=4, hidden=6)
KEY = jax.random.key(3)


def features(rng, rows=6):
    return {m: rng.normal(size=(rows, d)).astype(np.float32) for m, d in WIDTHS.items()}


def presence(rng, rows=6):
    return {m: rng.random(rows) < 0.5 for m in NAMES}


@functools.cache
def params():
    x = {m: jnp.zeros((1, d)) for m, d in WIDTHS.items()}
    return unbox(jax.jit(FUSION.init)(jax.random.key(0), x, {m: jnp.ones(1, bool) for m in NAMES}))


@functools.cache
def compiled():
    """The gradient of the last state by the features, and the states."""
    weights = params()

    def last(x, present):
        states = FUSION.apply(weights, x, present)
        return jnp.sum(jnp.sin(states[:, -1])), states

    return jax.jit(jax.grad(last, has_aux=True))


def test_a_missing_modality_leaves_the_state_of_its_row_alone(rng):
    present = presence(rng)
    _, states = compiled()(features(rng), present)
    assert states.shape == (6, 4, 4)
    np.testing.assert_array_equal(states[:, 0], np.broadcast_to(params()["params"]["state"], (6, 4)))
    for i, m in enumerate(NAMES):
        same = np.all(states[:, i] == states[:, i + 1], axis=1)
        np.testing.assert_array_equal(same, ~present[m])
        assert same.any() and not same.all()


def test_what_other_rows_lack_does_not_matter(rng):
    x, present = features(rng), presence(rng)
    _, states = compiled()(x, present)
    full = {m: np.where(np.arange(6) < 3, present[m], True) for m in NAMES}
    np.testing.assert_array_equal(compiled()(x, full)[1][:3], states[:3])
    assert np.any(compiled()(x, full)[1][3:] != states[3:])


@pytest.mark.parametrize("filling", [1e6, np.nan])
def test_missing_features_have_no_influence_and_no_gradient(rng, filling):
    x, present = features(rng), presence(rng)
    gradient, states = compiled()(x, present)
    other = {m: np.where(present[m][:, None], x[m], np.float32(filling)) for m in NAMES}
    jax.tree.map(np.testing.assert_array_equal, compiled()(other, present), (gradient, states))
    for m in NAMES:
        assert not np.any(gradient[m][~present[m]])
        assert np.all(np.any(gradient[m][present[m]] != 0, axis=1))


def test_a_modality_left_out_is_missing_everywhere(rng):
    x, present = features(rng), presence(rng)
    present["image"] = np.zeros(6, bool)
    _, want = compiled()(x, present)
    got = FUSION.apply(params(), {m: x[m] for m in ("labs", "ecg")}, present)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_unknown_and_no_modalities_are_named(rng):
    with pytest.raises(UserError, match="no modality 'imgae'; did you mean 'image'"):
        FUSION.apply(params(), {"imgae": np.zeros((1, 5))}, {})
    with pytest.raises(UserError, match="no features; give at least one of ecg, image, labs"):
        FUSION.apply(params(), {}, {})


@functools.cache
def dropped(rate):
    return jax.jit(lambda rows, present: modality_dropout(KEY, rows, present, rate))


def test_dropout_never_empties_a_row_and_adds_nothing(rng):
    rows, present = np.arange(4000), {m: rng.random(4000) < 0.6 for m in NAMES}
    kept = dropped(0.9)(rows, present)
    before, after = (np.stack([x[m] for m in NAMES]) for x in (present, kept))
    assert not np.any(after & ~before)
    np.testing.assert_array_equal(after.any(0), before.any(0))
    alone = before.sum(0) == 1
    np.testing.assert_array_equal(after[:, alone], before[:, alone])
    assert np.any(after.sum(0) < before.sum(0))


def test_dropout_comes_at_its_rate_less_the_rows_it_would_empty(rng):
    rate, n = 0.4, 6000
    kept = dropped(rate)(np.arange(n), dict.fromkeys(NAMES, np.ones(n, bool)))
    # One of three is spared where all were drawn.
    expected = rate - rate**3 / 3
    for m in NAMES:
        assert abs(np.mean(~kept[m]) - expected) < 4 * (expected * (1 - expected) / n) ** 0.5


def test_dropout_depends_on_the_global_row_not_on_the_cut_of_the_batch(rng):
    rows, present = np.arange(12), {m: rng.random(12) < 0.8 for m in NAMES}
    whole = modality_dropout(KEY, rows, present, 0.5)
    for a, b in ((0, 4), (4, 12)):
        part = modality_dropout(KEY, rows[a:b], {m: x[a:b] for m, x in reversed(present.items())}, 0.5)
        for m in NAMES:
            np.testing.assert_array_equal(part[m], whole[m][a:b])
