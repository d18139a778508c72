"""The objectives in float64 NumPy, from the papers' formulas with every matrix stored, and helpers to compare."""

from itertools import combinations

import jax
import numpy as np


def unit_rows(rng, rows: int, width: int, modalities: str) -> dict[str, np.ndarray]:
    """Random unit vectors, float32[rows, width], for each letter of `modalities`."""
    out = {}
    for m in modalities:
        x = rng.normal(size=(rows, width))
        out[m] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return out


def some_present(rng, rows: int, modalities: str, share: float = 0.7) -> dict[str, np.ndarray]:
    """Random masks; the first row is complete and the second empty."""
    masks = {m: rng.random(rows) < share for m in modalities}
    for mask in masks.values():
        mask[0], mask[1] = True, False
    return masks


def id_rows(numbers) -> np.ndarray:
    """uint32[b, 2] ids; number 0 is unknown."""
    numbers = np.asarray(numbers, np.uint32)
    return np.stack([numbers * 7, numbers], axis=1)


def assert_close(actual, expected, tolerance: float) -> None:
    """Every leaf agrees to `tolerance` times the largest entry of the expected leaf."""
    a, e = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(a, e, strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1e-6, np.abs(y).max()))


def numeric_gradient(function, tree: dict, step: float = 1e-5) -> dict:
    """Central differences of a float64 function of a dict of arrays; exact to about step**2."""
    tree = {k: np.array(v, np.float64) for k, v in tree.items()}
    out = {k: np.zeros_like(v) for k, v in tree.items()}
    for k, value in tree.items():
        for at in np.ndindex(value.shape):
            centre = value[at]
            value[at] = centre + step
            above = function(tree)
            value[at] = centre - step
            below = function(tree)
            value[at] = centre
            out[k][at] = (above - below) / (2 * step)
    return out


def cross_entropy(s_qk, allowed, answers, smoothing: float = 0.0) -> float | None:
    """Mean over rows with an answer of `lse - (1 - smoothing) mean_answers(S) - smoothing mean(S)`; None without."""
    rows = []
    for s, ok, right in zip(s_qk, allowed, answers & allowed, strict=True):
        if right.any():
            top = s[ok].max()
            lse = top + np.log(np.exp(s[ok] - top).sum())
            rows.append(lse - (1 - smoothing) * s[right].mean() - smoothing * s[ok].mean())
    return float(np.mean(rows)) if rows else None


def relation(n, patient=None, same_patient="ignore", text=None, same_text="ignore", group=None, same_group="ignore"):
    """`(keep, answers)` bool[n, n] of every pair of rows; ids are integers, 0 unknown."""
    answers, masked = np.eye(n, dtype=bool), np.zeros((n, n), bool)
    for numbers, policy in ((patient, same_patient), (text, same_text), (group, same_group)):
        if policy != "ignore":
            numbers = np.asarray(numbers)
            same = (numbers[:, None] == numbers[None]) & (numbers[:, None] != 0)
            if policy == "mask":
                masked |= same
            else:
                answers |= same
    return answers | ~masked, answers


def pair(z, scale, x, y, present=None, **ids):
    """`(S, allowed, answers)`, all `[n, n]`, of one pair of modalities."""
    n = len(z[x])
    keep, answers = relation(n, **ids)
    here = {m: np.ones(n, bool) if present is None else present[m] for m in (x, y)}
    allowed = here[x][:, None] & here[y][None] & keep
    return scale * z[x] @ z[y].T, allowed, answers & allowed


def info_nce(z, scale, present=None, pairs=None, weights=None, reduction="mean", **ids) -> float:
    """arXiv 2103.00020, figure 3, over pairs of modalities."""
    n = len(next(iter(z.values())))
    keep, answers = relation(n, **ids)
    pairs = pairs or list(combinations(sorted(z), 2))
    total, share = 0.0, 0.0
    for (x, y), weight in zip(pairs, weights or [1.0] * len(pairs), strict=True):
        s_xy = scale * z[x] @ z[y].T
        here = {m: np.ones(n, bool) if present is None else present[m] for m in (x, y)}
        allowed = here[x][:, None] & here[y][None] & keep
        for s, ok in ((s_xy, allowed), (s_xy.T, allowed.T)):
            value = cross_entropy(s, ok, answers)
            if value is not None:
                total, share = total + weight / 2 * value, share + weight / 2
    return total / share if reduction == "mean" else total


def gram_volumes(anchors, others, present=None) -> np.ndarray:
    """float64[q, k]: the volume that anchor i spans with the modalities present in sample j, by determinants."""
    q, k = len(anchors), len(others[0])
    vectors = np.zeros((q, k, 1 + len(others), anchors.shape[1]))
    vectors[:, :, 0] = anchors[:, None]
    matrix = np.zeros((q, k, 1 + len(others), 1 + len(others)))
    for m, x in enumerate(others):
        here = np.ones(k, bool) if present is None else present[m]
        vectors[:, :, 1 + m] = np.where(here[:, None], x, 0.0)[None]
        matrix[:, :, 1 + m, 1 + m] = ~here  # a one on the diagonal leaves the absent row out of the determinant
    matrix += np.einsum("qkme,qkne->qkmn", vectors, vectors)
    return np.sqrt(np.maximum(np.linalg.det(matrix), 0.0))


def gram(z, scale, anchor, smoothing=0.1, present=None, **ids) -> float:
    """arXiv 2412.11959, section 3.2: cross-entropy of -scale * volume in both directions."""
    n = len(z[anchor])
    others = [m for m in sorted(z) if m != anchor]
    present = present or {m: np.ones(n, bool) for m in z}
    s = -scale * gram_volumes(z[anchor], [z[m] for m in others], [present[m] for m in others])
    some = np.any([present[m] for m in others], axis=0)
    keep, answers = relation(n, **ids)
    allowed = present[anchor][:, None] & some[None] & keep
    values = [cross_entropy(s, allowed, answers, smoothing), cross_entropy(s.T, allowed.T, answers, smoothing)]
    values = [v for v in values if v is not None]
    return float(np.mean(values)) if values else 0.0


def symile_orders(key, modalities: int, rows: int) -> list[list[np.ndarray]]:
    """The permutations that `medjax.losses.symile` draws: one for every anchor and every other modality."""

    def draw(a, o):
        return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, a), o), rows)

    return [[np.asarray(draw(a, o)) for o in range(modalities - 1)] for a in range(modalities)]


def symile(z, scale, orders, present=None, missing="mask", mip_scale="none", patient=None) -> float:
    """arXiv 2411.01053, section 3.3, with the O(N) negatives of given permutations.

    Absent members spoil a tuple ("mask") or are ones ("neutral"); with `patient` a tuple of one patient is no negative.
    """
    names = sorted(z)
    n, width = z[names[0]].shape
    present = present or {m: np.ones(n, bool) for m in names}
    if mip_scale == "sqrt_d_power":
        z, scale = {m: width**0.5 * z[m] for m in names}, scale * width**-0.5
    z = {m: np.where(present[m][:, None], z[m], 1.0) for m in names}
    enough = np.all if missing == "mask" else np.any
    terms = []
    for anchor, permutations in zip(names, orders, strict=True):
        others = [m for m in names if m != anchor]
        drawn = dict(zip(others, permutations, strict=True))
        tuples = np.prod([z[m][drawn[m]] for m in others], axis=0)
        whole = enough([present[m][drawn[m]] for m in others], axis=0)
        s = z[anchor] @ tuples.T
        np.fill_diagonal(s, np.sum(np.prod([z[m] for m in names], axis=0), axis=1))
        allowed = np.broadcast_to(whole[None], (n, n)).copy()
        if patient is not None:
            same = [(patient[:, None] == patient[drawn[m]][None]) & (patient[:, None] != 0) for m in others]
            allowed &= ~np.all(same, axis=0)
        np.fill_diagonal(allowed, enough([present[m] for m in others], axis=0))
        allowed &= present[anchor][:, None]
        terms.append(cross_entropy(scale * s, allowed, np.eye(n, dtype=bool)))
    terms = [t for t in terms if t is not None]
    return float(np.mean(terms)) if terms else 0.0
