"""GRAM's matching term: frequencies of the drawn negatives, and the loss of the head."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_reference import gram_volumes, id_rows, unit_rows

from medjax.errors import UserError
from medjax.losses.gram_matching import draw_matching_pairs, matching_loss

ROWS, SCALE = 6, 5.0


def draw(z, key=0, **options):
    return draw_matching_pairs(z, anchor="a", logit_scale=SCALE, key=jax.random.key(key), **options)


def probabilities(z, floor):
    """Of negatives for each anchor, and for each tuple, from whole matrices."""
    v = gram_volumes(z["a"].astype(np.float64), [z[m].astype(np.float64) for m in sorted(z) if m != "a"])
    out = []
    for s in (-SCALE * v, -SCALE * v.T):
        p = np.exp(s - s.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True) + floor
        np.fill_diagonal(p, 0.0)
        out.append(p / p.sum(axis=1, keepdims=True))
    return out


@pytest.mark.parametrize("floor", [1e-4, 0.2])
def test_negatives_are_drawn_with_the_probabilities_of_the_formula(rng, floor):
    z, draws = unit_rows(rng, ROWS, 4, "abc"), 4000
    keys = jax.random.split(jax.random.key(0), draws)

    @jax.jit
    @jax.vmap
    def run(key):
        return draw_matching_pairs(z, anchor="a", logit_scale=SCALE, key=key, floor=floor, block=4)

    pairs = run(keys)
    to_tuple, to_anchor = pairs.others[:, ROWS : 2 * ROWS], pairs.anchor[:, 2 * ROWS :]
    for drawn, expected in zip((to_tuple, to_anchor), probabilities(z, floor), strict=True):
        observed = np.mean(np.asarray(drawn)[:, :, None] == np.arange(ROWS), axis=0)
        # Five standard deviations of a frequency.
        np.testing.assert_allclose(observed, expected, atol=5 * 0.5 / np.sqrt(draws))
        assert not np.diag(observed).any()


def test_pairs_are_the_true_ones_and_one_negative_on_each_side(rng):
    pairs = jax.jit(draw)(unit_rows(rng, ROWS, 4, "ab"))
    own = np.arange(ROWS)
    np.testing.assert_array_equal(pairs.anchor[: 2 * ROWS], np.tile(own, 2))
    np.testing.assert_array_equal(pairs.others[:ROWS], own)
    np.testing.assert_array_equal(pairs.others[2 * ROWS :], own)
    np.testing.assert_array_equal(pairs.match, pairs.anchor == pairs.others)
    assert pairs.match.sum() == ROWS
    assert pairs.valid.all()


def test_absent_rows_and_rows_of_one_patient_are_never_drawn(rng):
    z = unit_rows(rng, 8, 4, "abc")
    present = {"a": np.arange(8) != 1, "b": np.arange(8) > 2, "c": np.arange(8) > 3}  # no tuple in rows 0 to 2
    ids = {"patient": id_rows([1, 2, 3, 4, 4, 4, 5, 6])}
    for key in range(5):
        pairs = draw(z, key, present=present, ids=ids, same_patient="mask")
        anchor, others, match, valid = (np.asarray(x) for x in pairs)
        np.testing.assert_array_equal(valid[:8], np.arange(8) > 2)
        wrong = valid & ~match
        np.testing.assert_array_equal(valid[8:16], present["a"])
        np.testing.assert_array_equal(valid[16:], np.arange(8) > 2)
        assert present["a"][anchor[wrong]].all()
        assert (others[wrong] > 2).all()
        patient = ids["patient"][:, 1]
        assert (patient[anchor[wrong]] != patient[others[wrong]]).all()


def test_one_row_has_no_negative(rng):
    pairs = draw(unit_rows(rng, 1, 4, "ab"))
    np.testing.assert_array_equal(pairs.valid, [True, False, False])


def test_draws_and_loss_do_not_depend_on_the_number_of_devices(rng):
    z = unit_rows(rng, 8, 4, "abc")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    head = jnp.asarray(rng.normal(size=(8, 8)).astype(np.float32))

    def run(z, axis_name=None, block=1024):
        pairs = draw(z, axis_name=axis_name, block=block)
        margin = head[pairs.anchor, pairs.others]  # a stand-in for a head of any kind
        logits = jnp.stack([0.0 * margin, margin], axis=1)
        loss = matching_loss(logits, pairs.match, pairs.valid, axis_name=axis_name).mean()
        return loss, pairs.anchor.reshape(3, -1).T, pairs.others.reshape(3, -1).T

    rows = jax.P("data")
    spread = jax.shard_map(
        partial(run, axis_name="data", block=1), mesh=mesh, in_specs=rows, out_specs=(jax.P(), rows, rows)
    )
    local, sharded = run(z), jax.jit(spread)(z)
    np.testing.assert_allclose(local[0], sharded[0], rtol=1e-6)
    for a, b in zip(local[1:], sharded[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_loss_is_the_cross_entropy_of_two_classes(rng):
    logits = rng.normal(size=(9, 2)).astype(np.float32) * 40
    match, valid = np.arange(9) < 3, np.arange(9) != 4
    log_p = logits.astype(np.float64) - np.logaddexp(*logits.astype(np.float64).T)[:, None]
    expected = -np.mean(log_p[np.arange(9), match.astype(int)][valid])
    np.testing.assert_allclose(matching_loss(logits, match, valid).mean(), expected, rtol=1e-6)
    nothing = jax.value_and_grad(lambda x: matching_loss(x, match, np.zeros(9, bool)).mean())(jnp.asarray(logits))
    assert not any(np.any(x) for x in nothing)


def test_wrong_inputs_are_named(rng):
    z = unit_rows(rng, 4, 4, "bc")
    with pytest.raises(UserError, match=r"anchor 'a'.*valid: b, c"):
        draw(z)
    with pytest.raises(UserError, match=r"logits must be \[n, 2\].*got \[4\]"):
        matching_loss(jnp.zeros(4), jnp.zeros(4, bool))
