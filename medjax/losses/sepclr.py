"""SepCLR: what two populations have in common apart from what is salient in one of them."""

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.averaging import average
from medjax.losses.base import Term
from medjax.losses.decomposition import halves, score_first_halves
from medjax.losses.geometry import distance, log_mean_exp, reduce_gaussian
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Scale, Settings


@dataclass(frozen=True)
class SepCLR(Formula):
    """Common, salient, information-less and joint-entropy terms over embeddings `[common | salient]`.

    The first half of an embedding is the common part c (which a head puts on the unit sphere), the second the salient
    part s (which it does not). The modalities are the views of a sample. With `K(d) = exp(-d^2 / (2 tau))`, and x, y
    two views:

        common    mean |c_x - c_y|^2 / (2 tau)               + uniformity * log mean_{i != j} K(c_i - c_j)
        salient   mean_targets |s_x - s_y|^2 / (2 tau)       + uniformity * log mean_{i target, j != i} K(s_i - s_j)
        null      null * mean_background |s|^2
        joint     joint * mean_i log mean_{j != i} K(s_i - s_j) K(c_i - c_j)

    where a background j has s_j = 0 in the salient uniformity, and the last line is a kernel estimate of minus the
    joint entropy, which drives the salient factor out of c. ICLR 2024, neurospin-projects/2024_rlouiset_sep_clr,
    variant k-JEM: tau 0.5, uniformity 2, null 10, joint 10. Which pairs the released code leaves out of each mean
    (i = j, background with background), the weight of the salient uniformity and a factor of the null term could not be
    confirmed. Terms of pairs of views and of views are averaged, the four are added. The logit scale does not enter.

    `targets`: bool[b] or int[b]: positive for the target population, 0 for the background, negative for unknown, which
    enters the common and joint terms only.
    """

    tau: float = 0.5
    uniformity: float = 2.0
    null: float = 10.0
    joint: float = 10.0

    scale: ClassVar[Scale] = Scale(init=1.0, learnable=False)
    needs: ClassVar[tuple[str, ...]] = ("targets",)
    reduction: ClassVar[str] = "sum"

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for a single view or a temperature that is not positive."""
        if len(modalities) < 2:
            raise UserError(f"sepclr aligns views and got only {modalities}; give at least two")
        if not self.tau > 0:
            raise UserError(f"sepclr's tau must be positive, got {self.tau}")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """Each of the four by view or pair of views."""
        settings.relation.refuse_answers("sepclr")
        label = _population(inputs)
        target, background = label > 0, label == 0
        rate = 0.5 / self.tau
        parts = {m: halves("sepclr", z) for m, z in inputs.embeddings.items()}
        near = {"common": {}, "salient": {}}
        for x, y in combinations(parts, 2):
            near["common"][f"common_alignment_{x}_{y}"] = distance(inputs, x, y, parts[x][0], parts[y][0])
            near["salient"][f"salient_alignment_{x}_{y}"] = distance(inputs, x, y, parts[x][1], parts[y][1], target)

        def rows(keep):
            return settings.relation.describe(keep, inputs.ids, inputs.axis_name)

        wide, null, joint = {"common": {}, "salient": {}}, {}, {}
        for m, (common, salient) in parts.items():
            here = inputs.present[m]
            stats = reduce_gaussian(inputs, settings, rate, common, common, rows(here), rows(here))
            wide["common"][f"common_uniformity_{m}"] = log_mean_exp(stats, inputs.axis_name)
            pinned = jnp.where(target[:, None], salient, 0.0).astype(salient.dtype)
            queries, keys = rows(here & target), rows(here & (target | background))
            stats = reduce_gaussian(inputs, settings, rate, salient, pinned, queries, keys)
            wide["salient"][f"salient_uniformity_{m}"] = log_mean_exp(stats, inputs.axis_name)
            length = jnp.sum(jnp.square(salient.astype(jnp.float32)), axis=1)
            null[f"null_{m}"] = _mean(length, here & background)
            # The product of the two kernels is one kernel on the whole embedding.
            z = inputs.embeddings[m]
            stats = reduce_gaussian(inputs, settings, rate, z, z, rows(here), rows(here))
            joint[f"joint_{m}"] = _mean(stats.lse - jnp.log(jnp.maximum(stats.count, 1.0)), stats.count > 0)
        weighted = [(near["common"], rate), (wide["common"], self.uniformity)]
        weighted += [(near["salient"], rate), (wide["salient"], self.uniformity)]
        weighted += [(null, self.null), (joint, self.joint)]
        out = {}
        for terms, weight in weighted:
            out |= average(terms, weight, inputs.axis_name)
        return out

    def score(self, queries, candidates, target, logit_scale, present, modalities) -> jax.Array:
        """The mean inner product of the common parts, times the scale."""
        return score_first_halves("sepclr", queries, candidates, logit_scale, present)


def _population(inputs: Inputs) -> jax.Array:
    label = jnp.asarray(inputs.targets)
    b = next(iter(inputs.present.values())).shape
    if label.shape != b or not (label.dtype == bool or jnp.issubdtype(label.dtype, jnp.integer)):
        raise UserError(f"sepclr's targets must be bool or integer {list(b)}, got {label.dtype}{list(label.shape)}")
    return label.astype(jnp.int32)


def _mean(x_b: jax.Array, valid: jax.Array) -> Term:
    return Term(jnp.sum(jnp.where(valid, x_b, 0.0)), valid.sum().astype(jnp.float32))
