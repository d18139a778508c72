"""Similarities of a teacher modality as soft answers for those of the students (Any2Seg)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError, suggest
from medjax.losses.averaging import average
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Scale, Settings
from medjax.losses.relations import Relation
from medjax.losses.similarity import dot, product


@dataclass(frozen=True)
class SimilarityDistillation(Formula):
    """`mean_i KL( softmax_j(<t_i, t_j> / temperature) || softmax_j(s <x_i, y_j>) )` over students x and y.

    Any2Seg, arXiv 2407.11351: x = y are the intra-modal terms and x != y, in both orders, the inter-modal ones. The
    teacher t gets no gradient; its modality may be frozen features of another model. Intra-modal terms leave j = i
    out, which says nothing of vectors of one length. Both softmaxes run over the samples that have the
    teacher and the student. Temperatures, weights and the treatment of j = i of the paper could not be confirmed.

    teacher: its modality; all others are students. temperature: of the teacher. intra, inter: weights of the two kinds,
    each the mean of its terms. diagonal: keep j = i in the intra-modal terms too.
    """

    teacher: str
    temperature: float = 0.07
    intra: float = 1.0
    inter: float = 1.0
    diagonal: bool = False

    reduction: ClassVar[str] = "sum"
    scale: ClassVar[Scale] = Scale(init=1 / 0.07, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for an unknown teacher, no student or a temperature that is not positive."""
        if self.teacher not in modalities:
            hint = suggest(self.teacher, modalities)
            raise UserError(f"similarity_distillation's teacher {self.teacher!r} is not a modality; {hint}")
        if len(modalities) < 2:
            raise UserError("similarity_distillation needs a teacher and at least one student modality")
        if not self.temperature > 0:
            raise UserError(f"similarity_distillation's temperature must be positive, got {self.temperature}")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term for every ordered pair of students, and for each by itself."""
        settings.relation.refuse_answers("similarity_distillation")
        students = [m for m in inputs.embeddings if m != self.teacher]
        intra = {f"intra_{x}": self._divergence(inputs, settings, x, x) for x in students}
        inter = {f"inter_{x}_to_{y}": self._divergence(inputs, settings, x, y) for x, y in permutations(students, 2)}
        return average(intra, self.intra, inputs.axis_name) | average(inter, self.inter, inputs.axis_name)

    def _divergence(self, inputs: Inputs, settings: Settings, x: str, y: str) -> Term:
        rate = 1.0 / self.temperature
        t = jax.lax.stop_gradient(inputs.embeddings[self.teacher])
        taught = inputs.present[self.teacher]
        rows, keys = (
            settings.relation.describe(inputs.present[m] & taught, inputs.ids, inputs.axis_name) | {"teacher": t}
            for m in (x, y)
        )
        meets = _Meets(settings.relation, self.diagonal or x != y)

        def reduce(scale, queries, candidates, relation, *wanted):
            options = {"relation": relation, "columns": False, "wanted": wanted}
            stats, _ = settings.reduce(
                dot, {"scale": scale}, queries, candidates, rows, keys, inputs.axis_name, **options
            )
            return stats

        teacher_lse = reduce(jnp.float32(rate), t, t, meets, "lse").lse
        rows["lse"] = teacher_lse
        keys["lse"] = teacher_lse  # not read: both sides of a relation have the same leaves
        taught_by = _TaughtBy(meets, rate)
        teacher = reduce(jnp.float32(rate), t, t, taught_by, "positive")
        student = reduce(inputs.logit_scale, inputs.embeddings[x], inputs.embeddings[y], taught_by, "lse", "positive")
        valid = student.weight > 0
        share = jnp.where(valid, student.weight, 1.0)  # 1 but for rounding
        divergence = student.lse - student.positive / share - (teacher_lse - teacher.positive / share)
        return Term(jnp.sum(jnp.where(valid, divergence, 0.0)), valid.sum().astype(jnp.float32))


@dataclass(frozen=True)
class _Meets:
    """Every allowed pair, with or without a row and itself."""

    relation: Relation
    diagonal: bool

    def __call__(self, queries: Mapping, keys: Mapping) -> tuple[jax.Array, jax.Array]:
        allowed, _ = self.relation(queries, keys)
        if not self.diagonal:
            allowed &= queries["row"][:, None] != keys["row"][None, :]
        return allowed, jnp.zeros(allowed.shape, jnp.float32)


@dataclass(frozen=True)
class _TaughtBy:
    """The same pairs, with the teacher's softmax as the weights of the answers."""

    meets: _Meets
    rate: float

    def __call__(self, queries: Mapping, keys: Mapping) -> tuple[jax.Array, jax.Array]:
        allowed, _ = self.meets(queries, keys)
        log_share = self.rate * product(queries["teacher"], keys["teacher"]) - queries["lse"][:, None]
        return allowed, jnp.where(allowed, jnp.exp(jnp.where(allowed, log_share, 0.0)), 0.0)
