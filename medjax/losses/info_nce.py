"""InfoNCE over pairs of modalities, and the published systems that are settings of it."""

from dataclasses import dataclass
from typing import ClassVar

from medjax.errors import UserError, suggest
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Scale, Settings, cross_entropy
from medjax.losses.pairwise import Pairwise, reduce_dot


@dataclass(frozen=True)
class InfoNCE(Pairwise):
    """`1/2 mean_i [ -log softmax_j(s <x_i, y_j>)_i ] + 1/2` the same with x and y exchanged, for every pair (x, y).

    arXiv 2103.00020 (CLIP). `reduction="sum"` is Symile's pairwise baseline (rajesh-lab/symile). See
    `Pairwise` for pairs, weights and missing modalities.
    """

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term for each direction."""
        rows, columns = reduce_dot(inputs, settings, x, y)
        return {f"{x}_to_{y}": cross_entropy(rows, 0.5), f"{y}_to_{x}": cross_entropy(columns, 0.5)}


@dataclass(frozen=True)
class ConVIRT(Pairwise):
    """`lambda CE_i(s <v_i, u_j>) + (1 - lambda) CE_j(s <v_j, u_i>)`: InfoNCE that favours image to text.

    arXiv 2010.00747: lambda 0.75, temperature 0.1, held fixed (s = 10). Re-implementations differ: those
    of MGCA and RadZero have no lambda and temperature 0.07, which is `info_nce(reduction="sum")`. The first modality
    of a pair is the image.

    first_weight: lambda.
    """

    first_weight: float = 0.75

    scale: ClassVar[Scale] = Scale(init=10.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for a weight outside [0, 1]."""
        super().check(modalities)
        if not 0.0 <= self.first_weight <= 1.0:
            raise UserError(f"convirt's first_weight must be in [0, 1], got {self.first_weight}")

    def pair(self, inputs: Inputs, settings: Settings, x: str, y: str) -> dict[str, Term]:
        """One term for each direction."""
        rows, columns = reduce_dot(inputs, settings, x, y)
        return {
            f"{x}_to_{y}": cross_entropy(rows, self.first_weight),
            f"{y}_to_{x}": cross_entropy(columns, 1.0 - self.first_weight),
        }


@dataclass(frozen=True)
class MoRE(InfoNCE):
    """`sum_m InfoNCE(text, m)`: every other modality against the report, and none of them against each other.

    arXiv 2410.16239 and svthapa/MoRE `pretrain_multimodel.py`. The released code means to learn the temperature and
    builds its optimiser before the parameter exists, so it stays 0.02 (s = 50): that is the default here, and a
    learnt scale the switch (`learn_scale=True` in a recipe).

    anchor: the modality all others are paired with. others: also contrast the others with each other (MEDBind does).
    """

    reduction: str = "sum"
    anchor: str = "text"
    others: bool = False

    scale: ClassVar[Scale] = Scale(init=50.0, maximum=100.0, learnable=False)

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for an unknown anchor, and for pairs beside it."""
        if self.anchor not in modalities:
            raise UserError(f"more's anchor {self.anchor!r} is not a modality; {suggest(self.anchor, modalities)}")
        if self.pairs is not None:
            raise UserError("more takes its pairs from anchor=; use info_nce for pairs of your own")
        super().check(modalities)

    def pairs_of(self, modalities: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """The anchor with each of the others, then the others with each other where that is wanted."""
        rest = [m for m in modalities if m != self.anchor]
        pairs = [(self.anchor, m) for m in rest]
        if self.others:
            pairs += [(x, y) for i, x in enumerate(rest) for y in rest[i + 1 :]]
        return tuple(pairs)
