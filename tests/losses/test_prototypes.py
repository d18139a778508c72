"""Contrast with prototypes of classes against SupCon in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses_check import assert_matches
from losses_limits import assert_limits
from losses_reference import some_present, unit_rows

from medjax import losses
from medjax.errors import UserError

SCALARS = {"logit_scale": 4.0}


def multi_hot(rng, rows, classes):
    targets = (rng.random((rows, classes)) < 0.3).astype(np.int32)
    targets[0] = 0  # healthy
    targets[1] = 1  # everything
    targets[2, 0] = -1  # unknown
    targets[3, :2] = 1  # two classes and others
    return targets


def sup_con(x, prototypes, targets, scale, present):
    values = []
    for i, row in enumerate(targets):
        if present[i] and (row > 0).any():
            s = scale * prototypes @ x[i]
            lse = np.log(np.exp(s[row >= 0]).sum())
            values.append(np.mean(lse - s[row > 0]))
    return np.mean(values)


def test_value_and_gradient_equal_the_reference(rng):
    z, present = unit_rows(rng, 8, 3, "ab"), some_present(rng, 8, "ab")
    prototypes, targets = unit_rows(rng, 5, 3, "p")["p"], multi_hot(rng, 8, 5)

    def reference(z, scalars, learnt):
        c = learnt["prototypes"]
        return np.mean([sup_con(z[m], c, targets, scalars["logit_scale"], present[m]) for m in "ab"])

    learnt = {"prototypes": prototypes}
    assert_matches(
        "prototype_contrast", {}, reference, z, scalars=SCALARS, present=present, targets=targets, learnt=learnt
    )


def test_one_class_each_is_the_cross_entropy_of_a_classifier(rng):
    x, prototypes = unit_rows(rng, 8, 4, "a")["a"], unit_rows(rng, 3, 4, "p")["p"]
    labels = rng.integers(3, size=8)
    loss = losses.get("prototype_contrast")(
        {"a": x}, logit_scale=7.0, prototypes=prototypes, targets=np.eye(3, dtype=bool)[labels]
    )
    logits = jax.nn.log_softmax(7.0 * x @ prototypes.T)
    np.testing.assert_allclose(loss.mean(), -np.mean(np.asarray(logits)[np.arange(8), labels]), rtol=1e-5)


def candidates_of(key, targets):
    """Which prototypes enter each row's loss: those whose logit has a gradient."""
    rows, classes = targets.shape
    # With unit prototypes the gradient of a row is that of its logits.
    x, prototypes = jnp.zeros((rows, classes)), jnp.eye(classes)
    objective = losses.get("prototype_contrast", negatives=2)

    def call(x):
        return objective({"a": x}, logit_scale=1.0, prototypes=prototypes, targets=targets, key=key).mean()

    return np.asarray(jax.jit(jax.grad(call))(x)) != 0.0


def test_negatives_are_drawn_for_each_class_without_replacement(rng):
    targets = np.zeros((64, 12), np.int32)
    targets[np.arange(64), rng.integers(12, size=64)] = 1
    targets[32:, 0] = 1
    targets[:, 11] = -1
    some = candidates_of(jax.random.key(0), targets)
    classes = (targets > 0).sum(axis=1)
    drawn = some & (targets == 0)
    np.testing.assert_array_equal(drawn.sum(axis=1)[classes > 0], 2 * classes[classes > 0])
    assert not some[targets < 0].any()
    assert (drawn != (candidates_of(jax.random.key(1), targets) & (targets == 0))).any()
    assert drawn[:, 1:11].any(axis=0).all()


def test_enough_drawn_negatives_are_all_of_them(rng):
    z, prototypes, targets = unit_rows(rng, 8, 3, "ab"), unit_rows(rng, 5, 3, "p")["p"], multi_hot(rng, 8, 5)
    batch = {"logit_scale": 4.0, "prototypes": prototypes, "targets": targets}
    drawn = losses.get("prototype_contrast", negatives=5)(z, key=jax.random.key(0), **batch).mean()
    np.testing.assert_allclose(drawn, losses.get("prototype_contrast")(z, **batch).mean(), rtol=1e-6)


def test_draws_do_not_depend_on_the_number_of_devices(rng):
    z, targets = unit_rows(rng, 8, 3, "ab"), multi_hot(rng, 8, 9)
    prototypes = unit_rows(rng, 9, 3, "p")["p"]
    batch = {"prototypes": prototypes, "targets": jnp.asarray(targets), "key": jax.random.key(3)}
    objective = losses.get("prototype_contrast", negatives=1)

    def call(z, batch, **place):
        return objective(z, logit_scale=4.0, **batch, **place).mean()

    local = jax.jit(call)(z, batch)
    with jax.set_mesh(jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
        spread = jax.jit(lambda z, batch: call(z, batch, batch_axes=("data",)))(z, batch)
    np.testing.assert_allclose(local, spread, rtol=1e-6)


def test_limits(rng):
    batch = {"prototypes": unit_rows(rng, 5, 4, "p")["p"], "targets": multi_hot(rng, 8, 5)}
    assert_limits("prototype_contrast", {}, unit_rows(rng, 8, 4, "ab"), **batch)


def test_bfloat16_embeddings_are_computed_in_float32(rng):
    z = {m: jnp.asarray(x, jnp.bfloat16) for m, x in unit_rows(rng, 8, 4, "ab").items()}
    batch = {"prototypes": unit_rows(rng, 5, 4, "p")["p"], "targets": multi_hot(rng, 8, 5), "logit_scale": 4.0}
    objective = losses.get("prototype_contrast")
    exact = objective({m: x.astype(jnp.float32) for m, x in z.items()}, **batch).mean()
    np.testing.assert_allclose(objective(z, **batch).mean(), exact, rtol=1e-5)


def test_wrong_inputs_are_named(rng):
    z, prototypes, targets = unit_rows(rng, 8, 3, "a"), np.zeros((5, 3), np.float32), np.zeros((8, 5), bool)
    objective = losses.get("prototype_contrast")
    with pytest.raises(UserError, match="needs prototypes="):
        objective(z, logit_scale=1.0, targets=targets)
    with pytest.raises(UserError, match=r"prototypes must be \[k, 3\].*got \[5, 2\]"):
        objective(z, logit_scale=1.0, prototypes=prototypes[:, :2], targets=targets)
    with pytest.raises(UserError, match=r"targets must be \[8, 5\].*got \[8, 4\]"):
        objective(z, logit_scale=1.0, prototypes=prototypes, targets=targets[:, :4])
    with pytest.raises(UserError, match="needs key="):
        losses.get("prototype_contrast", negatives=5)(z, logit_scale=1.0, prototypes=prototypes, targets=targets)
    with pytest.raises(UserError, match="negatives must be None or a positive number, got 0"):
        losses.get("prototype_contrast", negatives=0, modalities=("a",))
    with pytest.raises(UserError, match="compares no two samples"):
        losses.get("prototype_contrast", same_patient="mask")(
            z, logit_scale=1.0, prototypes=prototypes, targets=targets
        )


def test_unknown_labels_of_a_batch_are_neither_answers_nor_negatives(rng):
    z, prototypes, targets = unit_rows(rng, 8, 3, "a"), unit_rows(rng, 5, 3, "p")["p"], multi_hot(rng, 8, 5)
    labels = {"labels": np.maximum(targets, 0).astype(np.float32), "labels_mask": targets >= 0}
    call = losses.get("prototype_contrast")
    plain, masked = (call(z, logit_scale=4.0, prototypes=prototypes, targets=t).mean() for t in (targets, labels))
    np.testing.assert_allclose(masked, plain, rtol=1e-6)
