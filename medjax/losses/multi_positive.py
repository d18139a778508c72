"""Several right answers: all rows of one class (UniCL, SupCon)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import check_choice
from medjax.losses.base import Term
from medjax.losses.collectives import global_rows
from medjax.losses.inputs import Inputs
from medjax.losses.labels import asked, describe_labels, same_label
from medjax.losses.objective import Settings, cross_entropy
from medjax.losses.pairwise import Pairwise, reduce_dot
from medjax.losses.relations import Relation
from medjax.losses.similarity import dot
from medjax.losses.statistics import Stats


@dataclass(frozen=True)
class SameLabel:
    """A relation in which rows of one class answer each other; `within` one pool a view is no key of its own."""

    relation: Relation
    within: bool = False

    def __call__(self, queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
        """`(allowed bool[q, k], positive float32[q, k])`."""
        allowed, positive = self.relation(queries, keys)
        both = queries["present"][:, None] & keys["present"][None]
        answer = (positive > 0) | (both & same_label(queries, keys))
        if self.within:
            other = queries["view"][:, None] != keys["view"][None]
            allowed, answer = allowed & other, answer & other
        answer &= asked(queries)[:, None] & asked(keys)[None]
        return allowed | answer, answer.astype(jnp.float32)


@dataclass(frozen=True)
class MultiPositive(Pairwise):
    """`mean_i [ -1/|P(i)| sum_{p in P(i)} log softmax_j(s <x_i, y_j>)_p ]`, P(i) the rows of i's class and i itself.

    UniCL (arXiv 2204.03610; MedImageInsight), half in each direction of every pair of modalities; with
    `within` SupCon (arXiv 2004.11362): all modalities are views of one pool, and a view is compared with every other
    one, those of its own modality too. Without `targets` only ids relate rows (`same_text="positive"`: by the hash of
    the report). Classes are those of `medjax.losses.labels.describe_labels`. A row of negative class is a negative for
    all, and has no answer (MainzVision drops its targets only).

    form: "out" is the mean of the logarithms, "in" the logarithm of the mean: `-log 1/|P| sum_p softmax_p`.
    """

    form: str = "out"
    within: bool = False

    needs: ClassVar[tuple[str, ...]] = ()

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for an unknown form."""
        check_choice("multi_positive form", self.form, ("out", "in"))
        if not self.within:
            super().check(modalities)

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """Two for every pair, or with `within` one for all."""
        return {"views": self._within(inputs, settings)} if self.within else super().terms(inputs, settings)

    @property
    def _wanted(self) -> tuple[str, ...]:
        return ("lse", "positive") if self.form == "out" else ("lse", "answers")

    def _term(self, stats: Stats, weight: float) -> Term:
        if self.form == "out":
            return cross_entropy(stats, weight)
        valid = stats.weight > 0
        loss = stats.lse - stats.answers + jnp.log(jnp.where(valid, stats.weight, 1.0))
        return Term(jnp.sum(jnp.where(valid, loss, 0.0)), valid.sum().astype(jnp.float32), weight)

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term for each direction."""
        labels, relation = _labels(inputs, inputs.present[x].shape[0]), SameLabel(settings.relation)
        both = reduce_dot(inputs, settings, x, y, rows=labels, relation=relation, wanted=self._wanted)
        rows, columns = (self._term(stats, 0.5) for stats in both)
        return {f"{x}_to_{y}": rows, f"{y}_to_{x}": columns}

    def _within(self, inputs: Inputs, settings: Settings) -> Term:
        names = list(inputs.embeddings)
        b = inputs.present[names[0]].shape[0]
        views = jnp.concatenate([inputs.embeddings[m] for m in names])
        one = [
            settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name) | _labels(inputs, b)
            for m in names
        ]
        rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), *one)
        rows["view"] = global_rows(b * len(names), inputs.axis_name)
        stats, _ = settings.reduce(
            dot,
            {"scale": inputs.logit_scale},
            views,
            views,
            rows,
            rows,
            inputs.axis_name,
            relation=SameLabel(settings.relation, within=True),
            columns=False,
            wanted=self._wanted,
        )
        return self._term(stats, 1.0)


def _labels(inputs: Inputs, b: int) -> dict[str, jax.Array]:
    """Without targets every example is a class of its own."""
    return describe_labels(jnp.zeros(b, jnp.int32) if inputs.targets is None else inputs.targets, b)
