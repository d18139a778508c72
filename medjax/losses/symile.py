"""Symile: contrast of whole tuples by their multilinear inner product, a bound on total correlation."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice
from medjax.losses.base import Term
from medjax.losses.collectives import all_gather, axis_size, global_rows, psum
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Scale, Settings
from medjax.losses.relations import KINDS, equal_ids
from medjax.losses.similarity import dot, product
from medjax.losses.symile_cube import Cut, Side, marginals, merge_over_devices

_KEPT = 2**26  # entries of a cube that may stay in memory, 256 MiB


@dataclass(frozen=True)
class Symile(Formula):
    """`1/M sum_a CE(s * L_a, diagonal)` with `L_a[i, j] = <r_a[i], P_j>`, P_j the product of a tuple's other members.

    arXiv 2411.01053, and rajesh-lab/symile `loss.py`. With `negatives="n"` tuple j holds row pi_m(j) of
    each non-anchor modality m, the permutations drawn anew for every anchor and call over the global batch; entry
    (i, i) is the aligned tuple. A tuple that happens to consist of row i alone is a false negative, as in the paper
    (about one entry in a batch for M = 3); `same_patient="mask"` removes tuples whose every member is of the
    anchor's patient, `same_group` and `same_text` likewise.

    With `negatives="n_squared"`, for three modalities, tuple (j, k) holds rows j and k of the other two, for all B^2 of
    them; (i, i) is the aligned one, and stays under `same_patient="mask"`. The three anchors' denominators are the
    marginals of one cube, see `medjax.losses.symile_cube`. `impl="dense"` keeps the cube for the backward pass, any
    other recomputes it, and "auto" keeps it up to 256 MiB.

    mip_scale: "none" is the paper; "sqrt_d_power" multiplies by E^((M-1)/2), so that for normalised embeddings the
    spread of a random tuple, and with it the logit scale, does not depend on E and M.
    Missing modalities: "mask" leaves out tuples with an absent member; "neutral" replaces the absent factor by ones,
    so that a modality absent everywhere gives exactly the loss of the smaller problem (times its share of anchors).
    Under "n_squared" the rows that lack a modality are together one candidate, for their factors are the same.
    """

    negatives: str = "n"
    mip_scale: str = "none"

    @property
    def needs(self) -> tuple[str, ...]:
        """A key, where the negatives are drawn."""
        return ("key",) if self.negatives == "n" else ()

    @property
    def scale(self) -> Scale:
        """1 where the spread of a random tuple is 1; the paper's constants depend on its embeddings."""
        return Scale(init=1.0 if self.mip_scale == "sqrt_d_power" else 1 / 0.07)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for fewer than three modalities or unknown options."""
        check_choice("symile negatives", self.negatives, ("n", "n_squared"))
        check_choice("symile mip_scale", self.mip_scale, ("none", "sqrt_d_power"))
        if len(modalities) < 3:
            raise UserError(f"symile needs three or more modalities and got {modalities}; use info_nce for two")
        if self.negatives == "n_squared" and len(modalities) != 3:
            raise UserError(f"symile with negatives='n_squared' takes three modalities and got {modalities}; use 'n'")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term for each anchor."""
        settings.relation.refuse_answers("symile")
        names = tuple(inputs.embeddings)
        factors = {m: self._factor(inputs.embeddings[m], inputs.present[m]) for m in names}
        width = inputs.embeddings[names[0]].shape[1]
        theta = {"scale": inputs.logit_scale * self._outer(width)}
        if self.negatives == "n_squared":
            return _cube_terms(inputs, settings, factors, theta["scale"])
        return {
            anchor: _anchor_term(inputs, settings, factors, anchor, theta, jax.random.fold_in(inputs.key, i))
            for i, anchor in enumerate(names)
        }

    def _outer(self, width: int) -> float:
        return 1.0 if self.mip_scale == "none" else width**-0.5

    def _factor(self, x_be: jax.Array, present_b: jax.Array) -> jax.Array:
        """float32[b, E]: what a modality contributes to a product; ones where it is absent."""
        scale = 1.0 if self.mip_scale == "none" else x_be.shape[1] ** 0.5
        return jnp.where(present_b[:, None], scale * x_be.astype(jnp.float32), 1.0)

    def score(self, queries, candidates, target, logit_scale, present, modalities) -> jax.Array:
        """`s * <prod_m q_m, c>` where every other modality is present, else 0: a part of a tuple says nothing."""
        some = next(iter(present.values()))
        if set(modalities) - {target} - set(queries):
            return jnp.zeros((some.shape[0], candidates.shape[0]), jnp.float32)
        whole = jnp.ones_like(some)
        joint = jnp.float32(1.0)
        for m, x in queries.items():
            joint, whole = joint * self._factor(x, present[m]), whole & present[m]
        last = self._factor(candidates, jnp.ones(candidates.shape[0], bool))
        logits = logit_scale * self._outer(candidates.shape[1]) * product(joint, last)
        return jnp.where(whole[:, None], logits, 0.0)


def _anchor_term(inputs: Inputs, settings: Settings, factors, anchor: str, theta, key) -> Term:
    """Cross-entropy of one anchor against the shuffled tuples of the others, all on this device's rows."""
    others = [m for m in factors if m != anchor]
    b = inputs.present[anchor].shape[0]
    n = b * axis_size(inputs.axis_name)
    # A member of a tuple is described by its own row; an absent one is neutral or spoils the tuple.
    described = {m: settings.relation.describe(inputs.present[m], inputs.ids, None) for m in others}
    gathered = all_gather({m: (factors[m], described[m]) for m in others}, inputs.axis_name)
    tuples, members, whole = jnp.float32(1.0), [], []
    for i, m in enumerate(others):
        order = jax.random.permutation(jax.random.fold_in(key, i), n)
        factor, rows = jax.tree.map(lambda x, order=order: x[order], gathered[m])
        tuples = tuples * factor
        members.append(rows)
        whole.append(rows["present"])
    enough = jnp.any if settings.missing == "neutral" else jnp.all
    tuple_rows = {
        "present": enough(jnp.stack(whole), axis=0),
        "row": jnp.arange(n, dtype=jnp.int32),
        "members": [{k: v for k, v in rows.items() if k in KINDS} for rows in members],
    }
    anchor_rows = settings.relation.describe(inputs.present[anchor], inputs.ids, inputs.axis_name)
    anchor_rows["row"] = global_rows(b, inputs.axis_name)
    own = jnp.float32(1.0)
    for m in others:
        own = own * factors[m]
    valid = inputs.present[anchor] & enough(jnp.stack([inputs.present[m] for m in others]), axis=0)
    rows, _ = settings.reduce(
        dot, theta, factors[anchor], tuples, anchor_rows, tuple_rows, None, relation=_shuffled, columns=False
    )
    positive = theta["scale"] * jnp.sum(factors[anchor] * own, axis=1)
    # -log softmax over the own tuple and the negatives, which may be none.
    loss = jnp.where(rows.count > 0, jax.nn.softplus(rows.lse - positive), 0.0)
    return Term(jnp.sum(jnp.where(valid, loss, 0.0)), valid.sum().astype(jnp.float32))


def _cube_terms(inputs: Inputs, settings: Settings, factors, scale) -> dict[str, Term]:
    """Cross-entropy of each anchor against all pairs of the other two: its own rows of the cube's marginals.

    Each device holds the slice of its rows of the first modality, so the other two marginals are parts of the whole.
    """
    axis_name, names = inputs.axis_name, tuple(factors)
    present = jnp.stack([inputs.present[m] for m in names], axis=1)
    neutral = settings.missing == "neutral"
    absent = psum(jnp.sum(~present, axis=0), axis_name).astype(jnp.float32)
    weight = jnp.where(present, 1.0, (1.0 / jnp.maximum(absent, 1.0)) if neutral else 0.0)
    sides = []
    for i, m in enumerate(names):
        rows = settings.relation.describe(present[:, i], inputs.ids, axis_name)
        factor = scale * factors[m] if i == 0 else factors[m]
        sides.append(Side(factor, {**rows, "weight": weight[:, i], "whole": present}))
    x, *others = sides
    y, z = all_gather(others, axis_name)
    b, n = len(x.factor), len(y.factor)
    keep = settings.impl == "dense" or (settings.impl == "auto" and b * n * n <= _KEPT)
    lses = marginals(Cut.of((b, n, n), settings.block, keep), x, y, z)
    positive = jnp.sum(x.factor * sides[1].factor * sides[2].factor, axis=1)
    terms = {}
    for i, (m, lse) in enumerate(zip(names, lses, strict=True)):
        if i and axis_name is not None:
            lse = jax.lax.dynamic_slice_in_dim(merge_over_devices(lse, axis_name), jax.lax.axis_index(axis_name) * b, b)
        some = jnp.any if neutral else jnp.all
        valid = present[:, i] & some(jnp.delete(present, i, axis=1), axis=1)
        loss = jnp.where(valid, lse - positive, 0.0)
        terms[m] = Term(jnp.sum(loss), valid.sum().astype(jnp.float32))
    return terms


def _shuffled(queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
    """Every whole tuple but the one in the place of the own, and but disguised positives under "mask"."""
    allowed = queries["present"][:, None] & keys["present"][None, :]
    allowed &= queries["row"][:, None] != keys["row"][None, :]
    for kind in KINDS:
        if kind in queries:
            allowed &= ~_all_equal(queries[kind], [m[kind] for m in keys["members"]])
    return allowed, jnp.zeros(allowed.shape, jnp.float32)


def _all_equal(own: jax.Array, members: list[jax.Array]) -> jax.Array:
    same = equal_ids(own, members[0])
    for ids in members[1:]:
        same &= equal_ids(own, ids)
    return same
