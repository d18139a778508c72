"""Soft targets: how alike two rows' findings are says how much they should attract each other (Cardiac-CLIP)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.labels import describe_labels, unit_findings
from medjax.losses.objective import Settings
from medjax.losses.pairwise import Pairwise, reduce_dot
from medjax.losses.relations import Relation
from medjax.losses.similarity import dot, product
from medjax.losses.statistics import Stats


@dataclass(frozen=True)
class Alike:
    """A relation whose answers are all allowed pairs, weighted by `exp((cosine of the findings - 1) / temperature)`.

    With "log_sum" in the queries' metadata the weights are normalised over the keys of each query.
    """

    relation: Relation
    temperature: float

    def __call__(self, queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
        """`(allowed bool[q, k], positive float32[q, k])`."""
        allowed, _ = self.relation(queries, keys)
        exponent = (product(queries["findings"], keys["findings"]) - 1.0) / self.temperature
        if "log_sum" in queries:
            exponent = exponent - queries["log_sum"][:, None]
        return allowed, jnp.where(allowed, jnp.exp(jnp.where(allowed, exponent, 0.0)), 0.0)


@dataclass(frozen=True)
class SoftTarget(Pairwise):
    """`-mean_i sum_j Q_ij log softmax_j(s <x_i, y_j>)`, half in each direction, `Q = softmax_j(cos(l_i, l_j) / tau)`.

    Cardiac-CLIP, arXiv 2507.22024, with `targets` of findings `[b, K]`. Its code differs from what it describes in
    four ways: tau = 1 makes the targets nearly flat (`label_temperature=1.0`; the default here is sharper and no
    published value); the direction y to x reuses Q transposed, whose rows do not add up to one (`renormalise=False`);
    a scan without findings has no cosine and gives NaN (here "no finding" is a finding, always); and the
    scale is the raw parameter 2.659, not its exponential (`scale=2.659` in a recipe).
    """

    label_temperature: float = 0.1
    renormalise: bool = True

    needs: ClassVar[tuple[str, ...]] = ("targets",)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for a temperature that is not positive."""
        super().check(modalities)
        if self.label_temperature <= 0:
            raise UserError(f"soft_target's label_temperature must be positive, got {self.label_temperature}")

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term for each direction."""
        labels = describe_labels(inputs.targets, inputs.present[x].shape[0])
        if "labels" not in labels:
            raise UserError("soft_target compares findings: pass targets [b, K], not classes; see multi_positive")
        findings = {"findings": unit_findings(labels["labels"])}
        relation = Alike(settings.relation, self.label_temperature)
        if not self.renormalise:
            findings["log_sum"] = self._log_sum(inputs, settings, relation, findings["findings"], x, y)
        rows, columns = reduce_dot(inputs, settings, x, y, rows=findings, relation=relation)
        both = inputs.present[x] & inputs.present[y]
        return {
            f"{x}_to_{y}": _soft_cross_entropy(rows, both, True),
            f"{y}_to_{x}": _soft_cross_entropy(columns, both, self.renormalise),
        }

    def _log_sum(self, inputs: Inputs, settings: Settings, relation: Alike, findings, x: str, y: str) -> jax.Array:
        """float32[b]: the logarithm of each row's sum of weights over the whole batch."""
        meta = [settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name) for m in (x, y)]
        meta = [rows | {"findings": findings} for rows in meta]
        rows, _ = settings.reduce(
            dot,
            {"scale": jnp.float32(1.0)},
            findings,
            findings,
            *meta,
            inputs.axis_name,
            relation=relation,
            columns=False,
            wanted=(),
        )
        return jnp.log(jnp.where(rows.weight > 0, rows.weight, 1.0))


def _soft_cross_entropy(stats: Stats, valid: jax.Array, normalised: bool) -> Term:
    total = jnp.where(stats.weight > 0, stats.weight, 1.0)
    share = total if normalised else 1.0
    loss = (stats.weight * stats.lse - stats.positive) / share
    return Term(jnp.sum(jnp.where(valid, loss, 0.0)), valid.sum().astype(jnp.float32), 0.5)
