"""GRAM: contrast by the volume that an anchor spans with all other modalities of a sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.errors import UserError, suggest
from medjax.losses.base import Term
from medjax.losses.inputs import Inputs
from medjax.losses.objective import Formula, Settings, cross_entropy
from medjax.losses.similarity import gram_volume

_TINY = 1e-12  # below the square of a float32 rounding error of a unit vector


@dataclass(frozen=True)
class Gram(Formula):
    """`1/2 CE(-s vol(a_i, M_j)) + 1/2 CE(-s vol(a_j, M_i))`, each with label smoothing.

    arXiv 2412.11959, and ispamm/GRAM `model/gram.py`, where s = 1 / 0.07 at the start. vol is the volume
    of the parallelotope of the anchor and the modalities of a sample. An absent modality drops out of its sample's
    volume; a sample counts where its anchor and at least one other modality are present.

    anchor: the modality all others are measured against. eps: floor of the squared distance of the anchor from the
    span of the others, at and below which the volume has no gradient (the released code has none and gives NaN there).
    stop_gradient: the released code gathers without a gradient, so that each direction trains its queries alone, the
    anchor in the first and the others in the second; the default is the gradient of the formula.
    """

    anchor: str
    label_smoothing: float = 0.1
    eps: float = 1e-6
    stop_gradient: bool = False

    def check(self, modalities: tuple[str, ...]) -> None:
        """Raises UserError for an unknown anchor, too few modalities or options out of range."""
        if self.anchor not in modalities:
            raise UserError(f"gram's anchor {self.anchor!r} is not a modality; {suggest(self.anchor, modalities)}")
        if len(modalities) < 2:
            raise UserError("gram needs an anchor and at least one other modality")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserError(f"gram's label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.eps <= 0.0:
            raise UserError(f"gram's eps must be positive, a root has no gradient at zero volume; got {self.eps}")

    def terms(self, inputs: Inputs, settings: Settings) -> dict[str, Term]:
        """The anchor against tuples, and tuples against the anchor."""
        others = [m for m in inputs.embeddings if m != self.anchor]
        keys = span([inputs.embeddings[m] for m in others], [inputs.present[m] for m in others])
        any_other = jnp.any(jnp.stack([inputs.present[m] for m in others]), axis=0)
        meta = [
            settings.relation.describe(p, inputs.ids, inputs.axis_name)
            for p in (inputs.present[self.anchor], any_other)
        ]
        theta = {"scale": inputs.logit_scale, "eps": jnp.float32(self.eps)}
        queries = _anchor(inputs.embeddings[self.anchor])
        wanted = ("lse", "positive", "total") if self.label_smoothing else ("lse", "positive")

        def reduce(queries, keys):
            return settings.reduce(gram_volume, theta, queries, keys, *meta, inputs.axis_name, wanted=wanted)

        if self.stop_gradient:
            rows, columns = (
                reduce(queries, jax.lax.stop_gradient(keys))[0],
                reduce(jax.lax.stop_gradient(queries), keys)[1],
            )
        else:
            rows, columns = reduce(queries, keys)
        return {
            f"{self.anchor}_to_others": cross_entropy(rows, 0.5, self.label_smoothing),
            f"others_to_{self.anchor}": cross_entropy(columns, 0.5, self.label_smoothing),
        }

    def score(self, queries, candidates, target, logit_scale, present, modalities) -> jax.Array:
        """`-s * vol(candidate, query modalities)`; the volume does not ask which of them is the anchor."""
        keys = span(list(queries.values()), [present[m] for m in queries])
        theta = {"scale": jnp.float32(logit_scale), "eps": jnp.float32(self.eps)}
        some = jnp.any(jnp.stack(list(present.values())), axis=0)
        return jnp.where(some[:, None], gram_volume(theta, _anchor(candidates), keys).T, 0.0)


def _anchor(x_be: jax.Array) -> dict:
    x_be = x_be.astype(jnp.float32)
    return {"anchor": x_be, "square": jnp.sum(x_be * x_be, axis=1)}


def span(vectors: Sequence[jax.Array], present: Sequence[jax.Array]) -> dict:
    """Orthonormal basis and volume of the modalities of each sample.

    vectors: M-1 arrays `[b, E]`; present: M-1 of bool[b]. Returns `basis` float32[b, M-1, E], with a zero row for an
    absent modality, and `volume` float32[b], the product of the lengths. Gram-Schmidt is run twice ("twice is
    enough"), since a Cholesky factor of the small Gram matrix would square the condition number.
    """
    basis: list[jax.Array] = []
    volume = jnp.ones(vectors[0].shape[0], jnp.float32)
    for x, here in zip(vectors, present, strict=True):
        v = x.astype(jnp.float32)
        for _ in range(2):
            for q in basis:
                v = v - jnp.sum(v * q, axis=1, keepdims=True) * q
        # Inside the root as well, or an absent row's gradient is 0 * inf.
        length = jnp.where(here, jnp.sqrt(jnp.where(here, jnp.sum(v * v, axis=1), 1.0) + _TINY), 1.0)
        basis.append(jnp.where(here[:, None], v / length[:, None], 0.0))
        volume = volume * length
    return {"basis": jnp.stack(basis, axis=1), "volume": volume}
