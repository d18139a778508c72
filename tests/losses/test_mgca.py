"""MGCA's three terms against their formulas in float64, and its Sinkhorn iterations over a mesh."""

from functools import partial

import jax
import jax.numpy as jnp
import losses_reference as reference
import numpy as np
import pytest
from losses_check import AXES, assert_matches
from losses_reference import some_present, unit_rows
from token_batches import (
    check_edges,
    check_half_precision,
    log_sum,
    present_samples,
    token_batch,
    unit,
    value_and_gradient,
)

from medjax.errors import UserError
from medjax.losses import get
from medjax.losses.mgca import sinkhorn
from medjax.sharding import MeshConfig, make_mesh

SCALE = {"logit_scale": 5.0}


def pooled_batch(rng, rows=8):
    z = unit_rows(rng, rows, 4, "ab")
    present = some_present(rng, rows, "ab")
    return {"image": z["a"], "text": z["b"]}, {"image": present["a"], "text": present["b"]}


def test_instance_term_is_the_sum_of_both_directions_of_infonce(rng):
    z, present = pooled_batch(rng)

    def oracle(z, scalars, _):
        return reference.info_nce(z, scalars["logit_scale"], present, weights=[2.0], reduction="sum")

    assert_matches("mgca_instance", {}, oracle, z, scalars=SCALE, present=present)


def clipped(weight, percentiles):
    some = weight > 0
    low, high = np.percentile(weight[some], percentiles)
    weight = np.where(some, np.clip(weight, low, high), 0.0)
    return weight / weight.sum()


def mgca_token(z, scale, present, weights, released=False, percentiles=(10, 90)) -> float:
    """arXiv 2210.06044, sample by sample."""
    here = present_samples(z, present)
    total, count = 0.0, 0
    for i in np.flatnonzero(here["image"] & here["text"]):
        count += 1
        for x, y in (("text", "image"), ("image", "text")):
            keep = np.ones_like(z[x].mask[i]) if released and x == "text" else z[x].mask[i]
            tokens, others = z[x].tokens[i][keep], z[y].tokens[i][z[y].mask[i]]
            attention = np.exp(scale * tokens @ others.T)
            seen = attention / attention.sum(1, keepdims=True) @ others
            if not (released and x == "image"):
                seen = unit(seen)
            logits = scale * tokens @ seen.T
            loss = log_sum(logits, axis=1) + log_sum(logits, axis=0) - 2 * np.diag(logits)
            weight = np.where(z[x].mask[i], weights[x][i], 0.0)[keep]
            total += 0.5 * clipped(weight, percentiles) @ loss
    return total / max(count, 1)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_token_term_equals_the_formula(rng, variant):
    weights = {"image": rng.random((8, 4)).astype(np.float32), "text": np.ones((8, 3), np.float32)}
    z, present = token_batch(rng, patches=4, sentences=3)
    constant = {m: w.astype(np.float64) for m, w in weights.items()}

    def oracle(z, scalars, _):
        return mgca_token(z, scalars["logit_scale"], present, constant, variant == "released")

    # The weights have no gradient, which a reference with constant ones shows.
    z["image"] = z["image"]._replace(weight=weights["image"])
    places = ("dense", "ring") if variant == "paper" else ("dense",)
    assert_matches("mgca_token", {"variant": variant}, oracle, z, scalars=SCALE, places=places, present=present)


def test_percentiles_clip_the_weights_of_a_sample(rng):
    z, _ = token_batch(rng, patches=4, masked=False)
    heavy = np.ones((8, 4), np.float32) * [100.0, 1.0, 2.0, 3.0]
    z["image"] = z["image"]._replace(weight=heavy.astype(np.float32))
    weights = {"image": heavy, "text": np.ones((8, 2))}
    present = {m: np.ones(8, bool) for m in z}
    value, _ = value_and_gradient("mgca_token", z, 5.0, {"percentiles": (30.0, 70.0)})
    expected, other = (mgca_token(z, 5.0, present, weights, percentiles=p) for p in ((30, 70), (0, 100)))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert not np.isclose(expected, other, rtol=1e-3)


def test_padding_order_absence_and_extremes(rng):
    z, present = token_batch(rng, weight=rng.random((8, 2)).astype(np.float32))
    check_edges("mgca_token", z, present, rng)


def test_token_term_accepts_half_precision(rng):
    z, present = token_batch(rng)
    check_half_precision("mgca_token", z, present=present)


def codes(scores, iterations):
    """SwAV's iterations on the plain exponentials, `[rows, prototypes]`."""
    q = np.exp(scores)
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(0, keepdims=True) * q.shape[1]
        q /= q.sum(1, keepdims=True) * q.shape[0]
    return q / q.sum(1, keepdims=True)


def mgca_prototype(z, scale, prototypes, present, fixed, epsilon=0.05) -> float:
    """arXiv 2210.06044; `fixed` is `(z, prototypes)` of the codes, which have no gradient."""
    valid = present["image"] & present["text"]
    total = 0.0
    for x, y in (("image", "text"), ("text", "image")):
        q = codes(fixed[0][x][valid].astype(np.float64) @ fixed[1].T / epsilon, 3)
        logits = scale * z[y][valid] @ prototypes.T
        total += np.mean(np.sum(q * (log_sum(logits, axis=1, keepdims=True) - logits), axis=1)) / 2
    return total


def test_prototype_term_equals_the_formula_on_any_mesh(rng):
    z, present = pooled_batch(rng, 16)
    prototypes = unit_rows(rng, 5, 4, "c")["c"]

    def oracle(moved, scalars, learnt):
        return mgca_prototype(moved, scalars["logit_scale"], learnt["prototypes"], present, (z, prototypes))

    learnt = {"prototypes": prototypes}
    assert_matches("mgca_prototype", {}, oracle, z, scalars=SCALE, learnt=learnt, present=present)


def test_local_sinkhorn_balances_the_rows_of_each_device(rng):
    z, _ = pooled_batch(rng, 16)
    prototypes = unit_rows(rng, 5, 4, "c")["c"]
    objective = get("mgca_prototype", sinkhorn="local")

    def call(z, **place):
        return objective(z, logit_scale=5.0, prototypes=prototypes, **place).mean()

    with jax.set_mesh(make_mesh(MeshConfig(replica=4, fsdp=2))):
        sharded = jax.jit(partial(call, batch_axes=AXES))(z)
    whole = {m: np.ones(2, bool) for m in z}
    pieces = [{m: x[at : at + 2] for m, x in z.items()} for at in range(0, 16, 2)]
    expected = np.mean([mgca_prototype(piece, 5.0, prototypes, whole, (piece, prototypes)) for piece in pieces])
    np.testing.assert_allclose(sharded, expected, rtol=1e-5)
    assert not np.isclose(sharded, jax.jit(call)(z), rtol=1e-3)


def test_sinkhorn_balances_rows_and_prototypes(rng):
    scores = (unit_rows(rng, 24, 4, "a")["a"] @ unit_rows(rng, 6, 4, "c")["c"].T) / 0.05
    valid = np.arange(24) < 18
    q = sinkhorn(jnp.asarray(scores), jnp.asarray(valid), 200, None)
    np.testing.assert_allclose(q[:18].sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(q.sum(0) / 18, 1 / 6, atol=1e-3)
    assert not q[18:].any()


def test_an_empty_batch_has_no_prototype_loss(rng):
    z, _ = pooled_batch(rng)
    nobody = {m: np.zeros(8, bool) for m in z}

    def call(z, prototypes):
        return get("mgca_prototype")(z, logit_scale=5.0, prototypes=prototypes, present=nobody).mean()

    value, gradient = jax.jit(jax.value_and_grad(call, argnums=(0, 1)))(z, unit_rows(rng, 5, 4, "c")["c"])
    assert value == 0.0
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("mgca_token", {"variant": "ours"}, "variant 'ours'"),
        ("mgca_token", {"percentiles": (90.0, 10.0)}, "percentiles"),
        ("mgca_token", {"same_patient": "mask"}, "compares no two samples"),
        ("mgca_prototype", {"sinkhorn": "none"}, "sinkhorn 'none'"),
        ("mgca_prototype", {"iterations": 0}, "iterations >= 1"),
        ("mgca_prototype", {"same_text": "positive"}, "compares no two samples"),
    ],
)
def test_wrong_options_are_named(rng, name, options, named):
    z = token_batch(rng)[0] if name == "mgca_token" else pooled_batch(rng)[0]
    with pytest.raises(UserError, match=named):
        get(name, **options)(z, logit_scale=1.0, prototypes=np.eye(4, dtype=np.float32))
