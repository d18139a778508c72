"""Contrast of any number of views or modalities at once: MV-InfoNCE and MV-DHEL."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Scale, Settings
from medjax.losses.pairwise import Negatives
from medjax.losses.relations import Relation
from medjax.losses.similarity import dot


@dataclass(frozen=True)
class MVInfoNCE(Formula):
    """`-mean_i log [ sum_{l != m} exp(s <u_il, u_im>) / sum_l sum_{(j, m) != (i, l)} exp(s <u_il, u_jm>) ]`.

    arXiv 2507.06979 and pakoromilas/Multi-View-CL `models/losses.py`; u_il is view (modality) l of sample i. With two
    views it is not NT-Xent: the logarithm is of the sum over views, not the sum of two logarithms. An absent view
    drops out of the numerator and denominator; a sample counts where two of its views are present, or, with
    same_patient="positive", one view and one of another sample of the patient.

    ordered_pairs: count each pair of views twice in the numerator, as paper and code do; False drops this constant,
    log 2. The temperature is fixed: 0.5 for CIFAR, 0.1 for ImageNet there.
    """

    ordered_pairs: bool = True

    scale: ClassVar[Scale] = Scale(init=10.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for fewer than two views."""
        _check_views("mv_infonce", modalities)

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """A single term."""
        views = len(inputs.embeddings)
        described = []
        for i, m in enumerate(inputs.embeddings):
            rows = settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name)
            described.append(rows | {"view": jnp.full_like(rows["row"], i)})
        # Every view of every sample is a row of its own, sample after sample.
        u, rows = (
            jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *parts)
            for parts in (list(inputs.embeddings.values()), described)
        )
        stats, _ = settings.reduce(
            dot,
            {"scale": inputs.logit_scale},
            u,
            u,
            rows,
            rows,
            inputs.axis_name,
            relation=_OtherViews(settings.relation),
            columns=False,
            wanted=("lse", "answers"),
        )
        denominator, _ = _log_sum(stats.lse.reshape(-1, views), (stats.count > 0).reshape(-1, views))
        numerator, valid = _log_sum(stats.answers.reshape(-1, views), (stats.weight > 0).reshape(-1, views))
        constant = 0.0 if self.ordered_pairs else math.log(2.0)
        loss = jnp.where(valid, denominator - numerator + constant, 0.0)
        return {"views": Term(jnp.sum(loss), valid.sum().astype(jnp.float32))}


@dataclass(frozen=True)
class MVDHEL(Formula):
    """`mean_i [ sum_l log sum_{j != i} exp(s <u_il, u_jl>) - log sum_{l < m} exp(s <u_il, u_im>) ]`.

    arXiv 2507.06979 and pakoromilas/Multi-View-CL `models/losses.py`, in logarithms throughout: the released product
    of sums overflows float32 at four views and a temperature of 0.07. The code's j != i is taken, not the formula of
    its README with every j. There are no negatives across modalities: tuples are aligned and each modality is spread,
    but nothing pushes an image from another sample's text. An absent view drops out of its sample's sums and
    is no negative; a sample counts where two of its views are present. A view without negatives adds nothing.

    ordered_pairs: count each pair of views twice in the numerator, a constant -log 2; paper and code count it once.
    """

    ordered_pairs: bool = False

    scale: ClassVar[Scale] = Scale(init=10.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for fewer than two views."""
        _check_views("mv_dhel", modalities)

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """A single term."""
        settings.relation.refuse_answers("mv_dhel")
        theta, spread = {"scale": inputs.logit_scale}, jnp.float32(0.0)
        for m, u in inputs.embeddings.items():
            rows = settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name)
            stats, _ = settings.reduce(
                dot,
                theta,
                u,
                u,
                rows,
                rows,
                inputs.axis_name,
                relation=Negatives(settings.relation),
                columns=False,
                wanted=("lse",),
            )
            spread += stats.lse  # 0 for an absent row
        products, both = [], []
        for x, y in combinations(inputs.embeddings, 2):
            x_be, y_be = (inputs.embeddings[m].astype(jnp.float32) for m in (x, y))
            products.append(inputs.logit_scale * jnp.sum(x_be * y_be, axis=1))
            both.append(inputs.present[x] & inputs.present[y])
        numerator, valid = _log_sum(jnp.stack(products, axis=1), jnp.stack(both, axis=1))
        constant = -math.log(2.0) if self.ordered_pairs else 0.0
        loss = jnp.where(valid, spread - numerator + constant, 0.0)
        return {"views": Term(jnp.sum(loss), valid.sum().astype(jnp.float32))}


@dataclass(frozen=True)
class _OtherViews:
    """Everything but the vector itself; the answers are the other views of the sample."""

    relation: Relation

    def __call__(self, queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
        allowed, positive = self.relation(queries, keys)
        itself = queries["row"][:, None] == keys["row"][None, :]
        itself &= queries["view"][:, None] == keys["view"][None, :]
        return allowed & ~itself, jnp.where(itself, 0.0, positive)


def _check_views(name: str, modalities: tuple[str, ...]) -> None:
    if len(modalities) < 2:
        raise UserError(f"{name} contrasts views and got only {modalities}; give at least two")


def _log_sum(x_bn: jax.Array, some: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32[b], bool[b]: log-sum-exp over the last axis where `some`, and whether there is any (else 0)."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(some, x_bn, -jnp.inf), axis=1))
    any_b = jnp.any(some, axis=1)
    top = jnp.where(any_b, top, 0.0)
    mass = jnp.sum(jnp.where(some, jnp.exp(jnp.where(some, x_bn - top[:, None], 0.0)), 0.0), axis=1)
    return top + jnp.log(jnp.where(any_b, mass, 1.0)), any_b
