"""MP-NCE: several sentences per image, each an answer of its own (RadZero)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.items import ImageText, ItemRelation, excess, flat
from medjax.losses.objective import Scale, Settings
from medjax.losses.pairwise import Negatives
from medjax.losses.relations import POLICIES
from medjax.losses.similarity import dot
from medjax.losses.statistics import Stats
from medjax.losses.token_similarity import masked_log_sum, vl_cabs

_LOWEST = -1e30  # a finite stand-in for -inf


@dataclass(frozen=True)
class MPNCE(ImageText):
    """Every sentence n is contrasted with its image g among the images, and its image with it among the sentences.

    arXiv 2504.07416, and deepnoid-ai/RadZero `losses.py`; `l` is the similarity times the scale:

        row_n = -log e^l(n,g) / sum_b e^l(n,b)
        col_n = -log e^l(n,g) / (e^l(n,g) + sum_{m not of image g} e^l(m,g))      1/2 (mean_n row + mean_n col)

    so the other sentences of an image are no negatives of it. With one sentence per image this is symmetric InfoNCE.

    similarity: "vl_cabs", the cosine of a sentence with the patches as it attends to them, see
    `medjax.losses.token_similarity.vl_cabs`; or "pooled", the inner product with `Tokens.pooled` of the image.
    attention_scale: of VL-CABS; None is the logit scale, as released. The released `sim_op="dot"` is E**-0.5, for
    tokens that are not normalised.
    row_sum, col_sum: the released switches, which add up the sentences of an image before the logarithm, as MIL-NCE
    does, and average over images: `-log sum_n e^l(n,g) / sum_n sum_b e^l(n,b)`, and the like for columns.
    same_sentence: an image whose text holds the same sentence (`Tokens.group` of the text) is a negative ("ignore", as
    released), left out ("mask") or a further answer ("positive").

    Under a "positive" policy every pair of a sentence and an image that answer each other has a row and a column, with
    no other answer in either, and the means are over those pairs; that takes two more passes over the similarities.
    """

    similarity: str = "vl_cabs"
    attention_scale: float | None = None
    row_sum: bool = False
    col_sum: bool = False
    same_sentence: str = "ignore"

    name: ClassVar[str] = "mp_nce"
    scale: ClassVar[Scale] = Scale(init=1 / 0.07)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or options."""
        super().check(modalities)
        check_choice("similarity", self.similarity, ("vl_cabs", "pooled"))
        check_choice("same_sentence", self.same_sentence, POLICIES)

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """Sentences against images, and images against sentences."""
        image, text, image_here, text_here = self.both(inputs)
        relation = ItemRelation(settings.relation, self.same_sentence)
        meta = relation.describe(text, text_here, image_here, inputs, self.name)
        theta = {"scale": inputs.logit_scale}
        if self.similarity == "pooled":
            tile, keys = dot, self.pooled(inputs, self.image)
        else:
            theta["attention"] = theta["scale"] if self.attention_scale is None else jnp.float32(self.attention_scale)
            tile, keys = vl_cabs, {"tokens": image.tokens, "mask": image.mask}
        operands = (theta, flat(text), keys)
        rows, columns = settings.reduce(tile, *operands, *meta, inputs.axis_name, relation=Negatives(relation))
        if self.same_sentence == "positive" or settings.relation.adds_answers:
            return self._by_pairs(inputs, settings, tile, operands, meta, relation, rows, columns)
        shape = text.mask.shape
        valid, own = (rows.weight > 0).reshape(shape), rows.positive.reshape(shape)
        some, negative = (rows.count > 0).reshape(shape), rows.lse.reshape(shape)
        bag, some_sentence = masked_log_sum(own, valid, 1), jnp.any(valid, axis=1)
        if self.row_sum:
            some = valid & some
            by_rows = excess(masked_log_sum(negative, some, 1), jnp.any(some, axis=1), bag)
        else:
            by_rows = excess(negative, some, own)
        negative, some = columns.lse, columns.count > 0
        by_columns = excess(negative, some, bag) if self.col_sum else excess(negative[:, None], some[:, None], own)
        return {
            f"{self.text}_to_{self.image}": _mean(by_rows, some_sentence if self.row_sum else valid),
            f"{self.image}_to_{self.text}": _mean(by_columns, some_sentence if self.col_sum else valid),
        }

    def _by_pairs(
        self, inputs, settings, tile, operands, meta, relation, rows: Stats, columns: Stats
    ) -> dict[str, Term]:
        """The terms where a sentence may answer several images: softplus of the negatives less each answer."""
        if self.row_sum or self.col_sum:
            raise UserError(
                "mp_nce's row_sum and col_sum know one image a sentence; use no 'positive' policy with them"
            )
        theta, queries, keys = operands
        none = jnp.zeros_like(rows.lse), jnp.zeros_like(columns.lse)
        by_rows, by_columns = (jnp.where(stats.count > 0, stats.lse, _LOWEST) for stats in (rows, columns))
        terms = {}
        for name, shifts in (
            (f"{self.text}_to_{self.image}", (by_rows, none[1])),
            (f"{self.image}_to_{self.text}", (none[0], by_columns)),
        ):
            shifted = [{"of": x, "shift": shift} for x, shift in zip((queries, keys), shifts, strict=True)]
            stats, _ = settings.reduce(
                Shifted(tile),
                theta,
                *shifted,
                *meta,
                inputs.axis_name,
                relation=Answers(relation),
                columns=False,
                wanted=("softplus",),
            )
            terms[name] = Term(jnp.sum(stats.softplus), jnp.sum(stats.weight), 0.5)
        return terms


@dataclass(frozen=True)
class Shifted:
    """A tile less a number of each row and of each column."""

    tile: Callable

    def __call__(self, theta: dict, queries: dict, keys: dict) -> jax.Array:
        """float32[q, k]; queries and keys are `{"of": operands, "shift": float32[n]}`."""
        return self.tile(theta, queries["of"], keys["of"]) - queries["shift"][:, None] - keys["shift"][None]


@dataclass(frozen=True)
class Answers:
    """A relation cut down to the pairs that answer each other."""

    relation: ItemRelation

    def __call__(self, queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
        """`(allowed bool[q, k], positive float32[q, k])`."""
        _, positive = self.relation(queries, keys)
        return positive > 0, positive


def _mean(loss, valid) -> Term:
    return Term(jnp.sum(jnp.where(valid, loss, 0.0)), valid.sum().astype(jnp.float32), 0.5)
