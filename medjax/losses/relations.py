"""Which pairs of rows may meet in a loss, computed tile by tile from a few integers per row.

`describe` gathers the per-row metadata; `Relation` turns a block of query rows and a block of key rows into
`allowed[q, k]` (the pair enters the log-sum-exp) and `positive[q, k]` (weights of the answers).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.errors import UserError, check_choice
from medjax.losses.collectives import AxisName, global_rows

POLICIES = ("ignore", "mask", "positive")
KINDS = ("patient", "group", "text")  # of ids by which two rows may be related


@dataclass(frozen=True)
class Relation:
    """What to do with a pair from one patient (`same_patient`), from one scan or study (`same_group`), or with
    identical text (`same_text`).

    "ignore": an ordinary negative; "mask": kept out of the negatives; "positive": a second right answer.
    Rows whose id is zero are unknown, and equal to nothing.
    """

    same_patient: str = "ignore"
    same_text: str = "ignore"
    same_group: str = "ignore"

    def __post_init__(self):
        for kind in KINDS:
            check_choice(f"same_{kind}", getattr(self, f"same_{kind}"), POLICIES)

    @property
    def policies(self) -> dict[str, str]:
        """`{kind: policy}` of the kinds that are not ignored."""
        every = {kind: getattr(self, f"same_{kind}") for kind in KINDS}
        return {kind: policy for kind, policy in every.items() if policy != "ignore"}

    @property
    def adds_answers(self) -> bool:
        """Whether related pairs are further right answers."""
        return "positive" in self.policies.values()

    def refuse_answers(self, name: str) -> None:
        """Raises UserError where objective `name`, which has one right answer a row, was given "positive"."""
        if self.adds_answers:
            given = ", ".join(f"same_{kind}" for kind, policy in self.policies.items() if policy == "positive")
            raise UserError(f"{name} has no second right answers; {given} must be 'ignore' or 'mask'")

    def describe(self, present: jax.Array, ids: Mapping | None, axis_name: AxisName) -> dict:
        """Per-row metadata: `present` bool[b], `row` int32[b] (global) and the ids the policies need, uint32[b, 2]."""
        out = {"present": present, "row": global_rows(present.shape[0], axis_name)}
        for kind, policy in self.policies.items():
            if ids is None or kind not in ids:
                raise UserError(f"same_{kind}={policy!r} needs ids[{kind!r}], uint32[b, 2]; pass ids=")
            out[kind] = ids[kind]
        return out

    def __call__(self, queries: dict, keys: dict) -> tuple[jax.Array, jax.Array]:
        """`(allowed bool[q, k], positive float32[q, k])`."""
        both = queries["present"][:, None] & keys["present"][None, :]
        own = queries["row"][:, None] == keys["row"][None, :]
        masked = jnp.zeros_like(both)
        positive = own
        for kind, policy in self.policies.items():
            same = equal_ids(queries[kind], keys[kind])
            if policy == "mask":
                masked |= same
            else:
                positive |= same
        allowed = both & (positive | ~masked)
        return allowed, (allowed & positive).astype(jnp.float32)


def equal_ids(x: jax.Array, y: jax.Array) -> jax.Array:
    """bool[q, k]: equal and known 64-bit ids, each stored as two uint32."""
    known = jnp.any(x != 0, axis=1)
    equal = (x[:, None, 0] == y[None, :, 0]) & (x[:, None, 1] == y[None, :, 1])
    return equal & known[:, None]
