"""What a formula is given, and the checks that it is whole."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.losses.collectives import AxisName
from medjax.losses.tokens import Tokens


@dataclass(frozen=True)
class Inputs:
    """What a formula sees: this device's rows, in the objective's order of modalities.

    embeddings: `{modality: [b, E]}`, or `{modality: Tokens}`. present: `{modality: bool[b]}`. ids: `{patient, group,
    text: uint32[b, 2]}`. logit_scale, logit_bias: float32[]. prototypes: `[k, E]`, the same on every device. key: a
    PRNG key, the same on every device.
    """

    embeddings: Mapping[str, Any]
    present: Mapping[str, jax.Array]
    logit_scale: jax.Array
    logit_bias: jax.Array | None
    prototypes: jax.Array | None
    ids: Mapping[str, jax.Array] | None
    targets: Any
    key: jax.Array | None
    axis_name: AxisName


def with_absent_row(inputs: Inputs) -> Inputs:
    """A batch of no rows as one of a single row that is absent, since there is no maximum of nothing."""

    def pad(tree):
        return jax.tree.map(lambda x: jnp.zeros((1, *jnp.shape(x)[1:]), jnp.asarray(x).dtype) + jnp.sum(x), tree)

    batch = {k: pad(getattr(inputs, k)) for k in ("embeddings", "ids", "targets")}
    return replace(inputs, **batch, present=dict.fromkeys(inputs.present, jnp.zeros(1, bool)))


def check_place(axis_name: AxisName, batch_axes: tuple[str, ...] | None) -> None:
    """Raises UserError where it is not said how the batch lies on the mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if axis_name is not None and batch_axes is not None:
        raise UserError("pass axis_name (inside shard_map) or batch_axes (sharded global arrays), not both")
    if mesh.manual_axes and axis_name is None:
        raise UserError(f"inside shard_map over {mesh.manual_axes} a loss needs axis_name=, the axis of the batch")
    if mesh.size > 1 and axis_name is None and batch_axes is None:
        raise UserError(
            f"under a mesh {dict(mesh.shape)} say where the batch lies: batch_axes=(...) for sharded global arrays, "
            "() for replicated ones"
        )


def check_shapes(name: str, takes: str, inputs: Inputs) -> None:
    """Raises UserError for embeddings or masks that do not fit objective `name`, or each other."""
    for m, x in inputs.embeddings.items():
        if isinstance(x, Tokens) != (takes == "tokens"):
            wanted = "medjax.losses.Tokens(tokens, mask)" if takes == "tokens" else "an array [b, E]"
            raise UserError(f"objective {name!r} takes {takes}: embeddings[{m!r}] must be {wanted}")
    if takes == "tokens":
        for m, x in inputs.embeddings.items():
            if x.tokens.ndim != 3 or x.mask.shape != x.tokens.shape[:2]:
                shapes = f"{list(x.tokens.shape)} and {list(x.mask.shape)}"
                raise UserError(f"embeddings[{m!r}] must have tokens [b, n, E] and mask bool[b, n], got {shapes}")
        shapes = {m: (x.tokens.shape[0], x.tokens.shape[2]) for m, x in inputs.embeddings.items()}
    else:
        shapes = {m: x.shape for m, x in inputs.embeddings.items()}
    if len(set(shapes.values())) > 1 or any(len(s) != 2 for s in shapes.values()):
        raise UserError(f"embeddings must all be [b, E] of one b and E, got {shapes}")
    b = next(iter(shapes.values()))[0]
    for m, p in inputs.present.items():
        if p.shape != (b,) or p.dtype != bool:
            raise UserError(f"present[{m!r}] must be bool[{b}], got {p.dtype}{list(p.shape)}")
