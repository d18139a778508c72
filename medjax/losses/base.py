"""What a loss returns: named terms that average as they should under masks, shards and missing modalities."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Term:
    """One direction, or one pair of modalities, summed over the whole mesh.

    total: float32[], the sum over valid rows. count: float32[], how many rows were valid.
    weight: share of this term in the mean of its group.
    """

    total: jax.Array
    count: jax.Array
    weight: float = field(default=1.0, metadata={"static": True})

    def mean(self) -> jax.Array:
        """float32[]: the mean over valid rows, and 0 where there are none."""
        return self.total / jnp.maximum(self.count, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Group:
    """The terms of one objective, with its weight in a sum of objectives.

    reduction "mean" is the weighted mean of the terms' means over terms with count > 0; "sum" their weighted sum.
    """

    terms: Mapping[str, Term]
    weight: float = field(default=1.0, metadata={"static": True})
    reduction: str = field(default="mean", metadata={"static": True})

    def value(self) -> jax.Array:
        """float32[]: the objective's value, before its weight in the sum."""
        alive = [term.weight * (term.count > 0) for term in self.terms.values()]
        total = sum(a * term.mean() for a, term in zip(alive, self.terms.values(), strict=True))
        if self.reduction == "sum":
            return total
        share = sum(alive)
        return total / jnp.where(share > 0, share, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Loss:
    """A weighted sum of objectives, each a group of named terms."""

    groups: Mapping[str, Group]

    @classmethod
    def of(cls, name: str, terms: Mapping[str, Term], reduction: str = "mean") -> "Loss":
        """The loss of a single objective."""
        return cls({name: Group(terms, reduction=reduction)})

    @classmethod
    def sum(cls, parts: Mapping[str, tuple[float, "Loss"]]) -> "Loss":
        """`sum_k weight_k * loss_k.mean()` as one loss; the groups are named by the keys of `parts`."""
        groups = {}
        for name, (weight, loss) in parts.items():
            for inner, group in loss.groups.items():
                key = name if len(loss.groups) == 1 else f"{name}/{inner}"
                groups[key] = Group(group.terms, weight * group.weight, group.reduction)
        return cls(groups)

    def mean(self) -> jax.Array:
        """float32[]: the value to minimise. Zero, with zero gradient, when nothing is valid."""
        return sum((g.weight * g.value() for g in self.groups.values()), jnp.float32(0.0))

    def metrics(self) -> dict[str, jax.Array]:
        """`{objective: value, objective/term: mean}`, for logs."""
        out = {}
        for name, group in self.groups.items():
            out[name] = group.value()
            if len(group.terms) > 1:
                out |= {f"{name}/{term}": t.mean() for term, t in group.terms.items()}
        return out
