"""Label-driven objectives (UniCL, SupCon, soft targets) against their formulas."""

import jax
import numpy as np
import pytest
from losses_check import assert_matches
from losses_reference import cross_entropy, id_rows, info_nce, pair, some_present, unit_rows

from medjax import losses
from medjax.errors import UserError


def same_class(classes):
    return (classes[:, None] == classes[None]) & (classes[:, None] > 0)


def uni_cl(z, scale, classes, present=None, form="out"):
    s, allowed, own = pair(z, scale, "a", "b", present)
    answers = (own | (allowed & same_class(classes))) & (classes >= 0)[:, None] & (classes >= 0)[None]
    values = [direction(s, allowed, answers, form), direction(s.T, allowed.T, answers.T, form)]
    return np.mean([v for v in values if v is not None])


def direction(s, allowed, answers, form):
    if form == "out":
        return cross_entropy(s, allowed, answers)
    rows = answers.any(1)
    power = np.where(allowed, np.exp(s), 0.0)[rows]
    share = np.where(answers[rows], power, 0.0).sum(1) / answers[rows].sum(1)
    return np.mean(np.log(power.sum(1)) - np.log(share))


def sup_con(z, scale, classes, present):
    names = sorted(z)
    views, here = np.concatenate([z[m] for m in names]), np.concatenate([present[m] for m in names])
    labels, sample = np.tile(classes, len(names)), np.tile(np.arange(len(classes)), len(names))
    allowed = here[:, None] & here[None] & ~np.eye(len(views), dtype=bool)
    answers = allowed & (same_class(labels) | (sample[:, None] == sample[None]))
    return cross_entropy(scale * views @ views.T, allowed, answers)


@pytest.mark.parametrize("form", ["out", "in"])
def test_uni_cl_equals_the_formula(rng, form):
    z, present = unit_rows(rng, 16, 3, "ab"), some_present(rng, 16, "ab")
    classes = rng.integers(-1, 4, 16).astype(np.int32)
    assert_matches(
        "multi_positive",
        {"form": form},
        lambda z, s, _: uni_cl(z, s["logit_scale"], classes, present, form),
        z,
        scalars={"logit_scale": 4.0},
        present=present,
        targets=classes,
        places=("dense", "ring") if form == "in" else ("ring",),
    )


def test_sup_con_pools_all_views(rng):
    z, present = unit_rows(rng, 8, 3, "abc"), some_present(rng, 8, "abc")
    classes = rng.integers(0, 3, 8).astype(np.int32)
    assert_matches(
        "multi_positive",
        {"within": True},
        lambda z, s, _: sup_con(z, s["logit_scale"], classes, present),
        z,
        scalars={"logit_scale": 4.0},
        present=present,
        targets=classes,
    )


def test_unique_labels_are_clip(rng):
    z = unit_rows(rng, 8, 4, "ab")
    plain = losses.get("info_nce")(z, logit_scale=5.0).mean()
    for classes in (np.zeros(8, np.int32), np.arange(1, 9, dtype=np.int32)):
        np.testing.assert_allclose(losses.get("multi_positive")(z, logit_scale=5.0, targets=classes).mean(), plain)


def test_one_class_costs_at_least_the_logarithm_of_the_batch(rng):
    classes = np.ones(8, np.int32)
    loss = losses.get("multi_positive")(unit_rows(rng, 8, 4, "ab"), logit_scale=5.0, targets=classes).mean()
    flat = losses.get("multi_positive")(dict.fromkeys("ab", np.ones((8, 4))), logit_scale=5.0, targets=classes).mean()
    assert loss > np.log(8)
    np.testing.assert_allclose(flat, np.log(8), rtol=1e-6)


def test_equal_findings_are_one_class_and_unknown_ones_their_own(rng):
    z = unit_rows(rng, 6, 4, "ab")
    findings = np.array([[1, 0], [1, 0], [0, 0], [0, 0], [1, 1], [1, 1]], np.float32)
    known = np.ones_like(findings, bool)
    known[5, 1] = False
    as_classes = np.array([1, 1, 2, 2, 3, 0], np.int32)
    objective = losses.get("multi_positive")
    vectors = objective(z, logit_scale=5.0, targets={"labels": findings, "labels_mask": known}).mean()
    np.testing.assert_allclose(vectors, objective(z, logit_scale=5.0, targets=as_classes).mean(), rtol=1e-6)


def test_one_text_is_one_class(rng):
    z, text = unit_rows(rng, 8, 4, "ab"), np.array([1, 1, 2, 3, 3, 3, 4, 0])
    by_hash = losses.get("multi_positive", same_text="positive")(z, logit_scale=5.0, ids={"text": id_rows(text)}).mean()
    by_class = losses.get("multi_positive")(z, logit_scale=5.0, targets=text.astype(np.int32)).mean()
    np.testing.assert_allclose(by_hash, by_class, rtol=1e-6)
    assert abs(by_hash - info_nce(z, 5.0)) > 1e-2


def soft_target(z, scale, findings, temperature, present=None, renormalise=True):
    s, allowed, _ = pair(z, scale, "a", "b", present)
    none = np.all(findings == 0, axis=1, keepdims=True)
    full = np.concatenate([findings, none], axis=1)
    full = full / np.linalg.norm(full, axis=1, keepdims=True)
    power = np.where(allowed, np.exp(full @ full.T / temperature), 0.0)
    total = power.sum(1, keepdims=True)
    q = power / np.where(total > 0, total, 1)
    total = power.sum(0, keepdims=True)
    back = power / np.where(total > 0, total, 1) if renormalise else q
    both = np.diag(allowed)
    values = []
    for s_qk, some, share in ((s, allowed, q), (s.T, allowed.T, back.T)):
        log_z = np.log(np.sum(np.where(some, np.exp(s_qk), 0.0), axis=1, where=some) + ~some.any(1))
        values.append(np.mean(np.sum(share * np.where(some, log_z[:, None] - s_qk, 0.0), axis=1)[both]))
    return np.mean(values)


@pytest.mark.parametrize("renormalise", [True, False])
def test_soft_targets_equal_the_formula(rng, renormalise):
    z, present = unit_rows(rng, 16, 3, "ab"), some_present(rng, 16, "ab")
    findings = (rng.random((16, 4)) < 0.4).astype(np.float32)
    assert not findings.any(1).all()
    assert_matches(
        "soft_target",
        {"label_temperature": 0.3, "renormalise": renormalise},
        lambda z, s, _: soft_target(z, s["logit_scale"], findings.astype(np.float64), 0.3, present, renormalise),
        z,
        scalars={"logit_scale": 4.0},
        present=present,
        targets=np.asarray(findings, np.int32),
        places=("ring",) if renormalise else ("dense", "ring"),
    )


def test_sharp_soft_targets_of_distinct_findings_are_clip(rng):
    z = unit_rows(rng, 8, 4, "ab")
    loss = losses.get("soft_target", label_temperature=0.01)(z, logit_scale=5.0, targets=np.eye(8, dtype=np.float32))
    np.testing.assert_allclose(loss.mean(), info_nce(z, 5.0), rtol=1e-5)


def test_scans_without_findings_give_no_nan(rng):
    z = unit_rows(rng, 4, 3, "ab")
    targets = np.zeros((4, 3), np.float32)
    value, gradient = jax.value_and_grad(
        lambda z: losses.get("soft_target")(z, logit_scale=5.0, targets=targets).mean()
    )(z)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradient.values())


def test_wrong_targets_say_what_is_wanted(rng):
    z = unit_rows(rng, 4, 3, "ab")
    with pytest.raises(UserError, match="needs targets="):
        losses.get("soft_target")(z, logit_scale=5.0)
    with pytest.raises(UserError, match="not classes"):
        losses.get("soft_target")(z, logit_scale=5.0, targets=np.zeros(4, np.int32))
    with pytest.raises(UserError, match=r"int\[4\] classes or \[4, K\]"):
        losses.get("multi_positive")(z, logit_scale=5.0, targets=np.zeros(3, np.int32))
