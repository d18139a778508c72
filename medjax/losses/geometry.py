"""Alignment and uniformity of embeddings, and what closes the contrastive gap between modalities."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.base import Term
from medjax.losses.collectives import AxisName, psum
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Scale, Settings
from medjax.losses.pairwise import Negatives, Pairwise
from medjax.losses.similarity import product
from medjax.losses.statistics import Stats


@dataclass(frozen=True)
class Alignment(Pairwise):
    """`mean_i |x_i - y_i|^2` for every pair (x, y) of modalities.

    arXiv 2005.10242 with alpha = 2; `L_align` of arXiv 2405.18570 (contrastive gap). The logit scale does
    not enter.
    """

    scale: ClassVar[Scale] = Scale(init=1.0, learnable=False)

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term: alignment is symmetric."""
        settings.relation.refuse_answers("alignment")
        return {f"{x}_{y}": distance(inputs, x, y, inputs.embeddings[x], inputs.embeddings[y])}


@dataclass(frozen=True)
class Uniformity(Formula):
    """`log mean_{i != j} exp(-t |x_i - x_j|^2)` within every modality, averaged over modalities.

    arXiv 2005.10242, and `L_unif` of arXiv 2405.18570 with its halves for two modalities (its released
    code averages over i < j, which is the same). Unlike most losses it is negative. The logit scale does not enter.
    Rows of one patient or text are no pair under "mask" and "positive" alike, since neither wants them apart.

    The contrastive gap's CUA is a weighted sum of objectives, and CUAXU adds the last line; all weights are 1 there:

        clip = get("info_nce")(z, logit_scale=100.0)  # fixed: temperature 0.01
        loss = Loss.sum({
            "clip": (1.0, clip),
            "uniformity": (1.0, get("uniformity")(z, logit_scale=1.0)),
            "alignment": (1.0, get("alignment")(z, logit_scale=1.0)),
            "cross_uniformity": (1.0, get("cross_uniformity")(z, logit_scale=1.0)),
        })

    t: inverse width of the Gaussian.
    """

    t: float = 2.0

    scale: ClassVar[Scale] = Scale(init=1.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for a width that is not positive."""
        _check_width("uniformity", self.t)

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """One term for each modality."""
        return {m: _spread(inputs, settings, m, m, self.t) for m in inputs.embeddings}


@dataclass(frozen=True)
class CrossUniformity(Pairwise):
    """`log mean_{i != j} exp(-t |x_i - y_j|^2)` for every pair (x, y) of modalities.

    `L_xunif` of arXiv 2405.18570. The logit scale does not enter. t: inverse width of the Gaussian.
    """

    t: float = 2.0

    scale: ClassVar[Scale] = Scale(init=1.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for unknown modalities or a width that is not positive."""
        super().check(modalities)
        _check_width("cross_uniformity", self.t)

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term: it is symmetric."""
        return {f"{x}_{y}": _spread(inputs, settings, x, y, self.t)}


def _check_width(name: str, t: float) -> None:
    if not t > 0:
        raise UserError(f"{name}'s t must be positive, got {t}")


def _spread(inputs: Inputs, settings: Settings, x: str, y: str, t: float) -> Term:
    meta = [settings.relation.describe(inputs.present[m], inputs.ids, inputs.axis_name) for m in (x, y)]
    rows = reduce_gaussian(inputs, settings, t, inputs.embeddings[x], inputs.embeddings[y], *meta)
    return log_mean_exp(rows, inputs.axis_name)


def distance(inputs: Inputs, x: str, y: str, x_be: jax.Array, y_be: jax.Array, keep=True) -> Term:
    """The mean of `|x_i - y_i|^2` over rows in which modalities x and y are present, and `keep` bool[b]."""
    valid = inputs.present[x] & inputs.present[y] & keep
    gap = jnp.sum(jnp.square(x_be.astype(jnp.float32) - y_be.astype(jnp.float32)), axis=1)
    return Term(jnp.sum(jnp.where(valid, gap, 0.0)), valid.sum().astype(jnp.float32))


def gaussian(theta: dict, queries: dict, keys: dict) -> jax.Array:
    """A tile: `-t |x_i - y_j|^2`; queries and keys are `{"x": [n, E], "square": float32[n]}`, see `with_square`."""
    squares = queries["square"][:, None] + keys["square"][None, :]
    # Rounding may leave coincident vectors a distance below 0.
    return -theta["t"] * jnp.maximum(squares - 2.0 * product(queries["x"], keys["x"]), 0.0)


def with_square(x_be: jax.Array) -> dict:
    """The operand of `gaussian`."""
    return {"x": x_be, "square": jnp.sum(jnp.square(x_be.astype(jnp.float32)), axis=1)}


def reduce_gaussian(inputs: Inputs, settings: Settings, t: float, x_be, y_be, x_rows: dict, y_rows: dict) -> Stats:
    """Row statistics "lse" of `-t |x_i - y_j|^2` over pairs of different rows."""
    rows, _ = settings.reduce(
        gaussian,
        {"t": jnp.float32(t)},
        with_square(x_be),
        with_square(y_be),
        x_rows,
        y_rows,
        inputs.axis_name,
        relation=Negatives(settings.relation),
        columns=False,
        wanted=("lse",),
    )
    return rows


def log_mean_exp(rows: Stats, axis_name: AxisName) -> Term:
    """The logarithm of the mean of exp over all pairs of the mesh, as a term whose mean is that number."""
    some = rows.count > 0
    pairs = psum(jnp.sum(rows.count), axis_name)
    top = jnp.max(jnp.where(some, jax.lax.stop_gradient(rows.lse), -jnp.inf))
    top = top if axis_name is None else jax.lax.pmax(top, axis_name)
    top = jnp.where(pairs > 0, top, 0.0)
    mass = psum(jnp.sum(jnp.where(some, jnp.exp(jnp.where(some, rows.lse - top, 0.0)), 0.0)), axis_name)
    value = top + jnp.log(jnp.where(pairs > 0, mass, 1.0)) - jnp.log(jnp.maximum(pairs, 1.0))
    here = some.sum().astype(jnp.float32)
    return Term(value * here, here)
